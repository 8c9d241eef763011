"""The ways to ask a container how it is. Each has a deadline for the whole of it, and keeps little of what it hears."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pycore.errors import ProbeFailed
from pycore.hookspecs import Inside

from pycore_supervision.inside import open_path, socket_in
from pycore_supervision.notation import Address, Url

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SHOWN = 1 << 10
"""Bytes of a page that are kept for people."""
HEARD = 256 << 10
"""Bytes that are read at most: more than the longest headers that http.client takes."""


class Deadline:
    """When an answer must be there."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left. Raises ProbeFailed where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def passed(self) -> ProbeFailed:
        """What there is to say when it has passed."""
        return ProbeFailed(f"no answer within {self.seconds:g} s")


@dataclass(frozen=True)
class CommandProbe:
    """A program that ends with status 0."""

    command: tuple[str, ...]

    def ask(self, inside: Inside, timeout: float) -> str:
        deadline = Deadline(timeout)
        status, output = inside.execute(self.command, timeout)
        text = output.decode("utf-8", "replace").strip()
        if status == 0:
            return text
        if status is None or status < 0:
            deadline.left()  # killed because its time was over?
        how = "an unknown status" if status is None else f"signal {-status}" if status < 0 else f"status {status}"
        raise ProbeFailed(f"{self.command[0]} ended with {how}" + (f": {text}" if text else ""))

    def explain(self) -> str:
        return f"run {' '.join(self.command)}"


@dataclass(frozen=True)
class TcpProbe:
    """A port that takes connections."""

    address: Address

    def ask(self, inside: Inside, timeout: float) -> str:
        connect(inside, self.address, Deadline(timeout)).close()
        return f"{self.address} takes connections"

    def explain(self) -> str:
        return f"connect to {self.address}"


@dataclass(frozen=True)
class HttpProbe:
    """A page whose status is 200 to 399."""

    url: Url

    def ask(self, inside: Inside, timeout: float) -> str:
        from http.client import HTTPException  # brings all of ssl along: a cost to none but who asks in this way

        deadline = Deadline(timeout)
        with connect(inside, self.url.address, deadline) as connection:
            try:
                status, text = self._get(connection, deadline)
            except TimeoutError:
                raise deadline.passed() from None
            except OSError as error:
                raise ProbeFailed(f"{self.url}: {error.strerror or error}") from error
            except HTTPException as error:
                raise ProbeFailed(f"{self.url}: no HTTP answer: {_words(error)}") from error
        if 200 <= status < 400:
            return text
        raise ProbeFailed(f"{self.url}: {text}")

    def _get(self, connection: socket.socket, deadline: Deadline) -> tuple[int, str]:
        """The status, and what is shown of the answer."""
        from http.client import HTTPResponse

        host = f"Host: {self.url.address}\r\nUser-Agent: pycore-health\r\nAccept: */*\r\nConnection: close\r\n"
        connection.settimeout(deadline.left())
        connection.sendall(f"GET {self.url.path} HTTP/1.1\r\n{host}\r\n".encode("ascii"))
        response = HTTPResponse(_Heard(connection, deadline))  # type: ignore[arg-type]
        try:
            response.begin()
            text = f"{response.status} {response.reason}".strip()
            if 200 <= response.status < 400:
                return response.status, text
            page = response.read(SHOWN).decode("utf-8", "replace").strip()
            return response.status, f"{text}: {page}" if page else text
        finally:
            response.close()

    def explain(self) -> str:
        return f"get {self.url}"


@dataclass(frozen=True)
class UnixProbe:
    """A socket in the file system that takes connections."""

    path: str

    def ask(self, inside: Inside, timeout: float) -> str:
        deadline = Deadline(timeout)
        place = _looked_up(inside, self.path)
        try:
            if not stat.S_ISSOCK(os.fstat(place).st_mode):
                raise ProbeFailed(f"{self.path}: is not a socket")
            _try_kinds(f"/proc/self/fd/{place}", self.path, deadline)
        finally:
            os.close(place)
        return f"{self.path} takes connections"

    def explain(self) -> str:
        return f"connect to {self.path}"


@dataclass(frozen=True)
class FileProbe:
    """A file that is there."""

    path: str

    def ask(self, inside: Inside, timeout: float) -> str:
        os.close(_looked_up(inside, self.path))
        return f"{self.path} is there"

    def explain(self) -> str:
        return f"look for {self.path}"


def connect(inside: Inside, address: Address, deadline: Deadline) -> socket.socket:
    """A connection to an address in the container's network. Raises ProbeFailed."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        made = socket_in(inside, family)
    except ProcessLookupError:
        raise ProbeFailed("the container has ended") from None
    except OSError as error:
        raise ProbeFailed(f"cannot reach the container's network: {error.strerror}") from error
    _guarded(made, lambda: made.connect((address.host, address.port)), str(address), deadline)
    return made


_KINDS = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)


def _try_kinds(place: str, name: str, deadline: Deadline) -> None:
    """Connect to a socket of whatever kind it is: only the kernel can tell."""
    for kind in _KINDS:
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC) as made:
            try:
                _guarded(made, lambda made=made: made.connect(place), name, deadline)  # type: ignore[misc]
            except ProbeFailed as error:
                cause = error.__cause__
                if kind is _KINDS[-1] or not (isinstance(cause, OSError) and cause.errno == errno.EPROTOTYPE):
                    raise
            else:
                return


def _guarded(made: socket.socket, act: Callable[[], object], name: str, deadline: Deadline) -> None:
    """Connect in time, or say what came of it; a socket that is not connected is closed."""
    try:
        made.settimeout(deadline.left())
        act()
    except TimeoutError:
        made.close()
        raise deadline.passed() from None
    except BlockingIOError:  # unix(7): its queue is full, and there is no waiting with a timeout
        made.close()
        raise ProbeFailed(f"{name}: takes no more connections") from None
    except OSError as error:
        made.close()
        raise ProbeFailed(f"{name}: {error.strerror or error}") from error


def _looked_up(inside: Inside, path: str) -> int:
    try:
        return open_path(inside, path)
    except OSError as error:
        raise ProbeFailed(f"{path}: {error.strerror}") from error


def _words(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text[:SHOWN]}" if text else type(error).__name__


class _Heard(io.RawIOBase):
    """What is heard over a connection: until the deadline however slowly it trickles, and no more than so much.

    A stand-in for the socket that http.client reads from.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._connection, self._deadline = connection, deadline
        self._left = HEARD

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """What http.client asks a socket for."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        if self._left <= 0:
            raise ProbeFailed("the answer does not end")
        self._connection.settimeout(self._deadline.left())
        count = self._connection.recv_into(view[: self._left])
        self._left -= count
        return count
