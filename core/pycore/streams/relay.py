"""Moves bytes between a client's streams and a container's, in the client's own thread.

It sleeps until there is something to do, holds a bounded amount for whoever is slow, and never makes the container
or another client wait: what a client does not take in time is lost to it, which it is told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from pycore.streams.terminal import DetachKeys, RawMode, set_window_size, window_size

CHUNK = 1 << 16
"""Bytes that are read at once, and held in either direction before no more is read."""

STDOUT = 1


class Source(Protocol):
    """Where the output comes from."""

    def descriptors(self) -> Sequence[int]:
        """Readable when there is something to take, or when it is over."""
        ...

    def take(self) -> tuple[Sequence[tuple[int, bytes]], int]:
        """What there is, as (stream, data), and how many bytes before it were lost. Never waits."""
        ...

    def over(self) -> bool:
        """Whether nothing comes any more but what can be taken now."""
        ...


class MasterSource:
    """The terminal of a program that nobody else listens to; over when the program has ended."""

    def __init__(self, master: int, pidfd: int) -> None:
        self._master, self._pidfd = master, pidfd
        self._over = False
        os.set_blocking(master, False)

    def descriptors(self) -> Sequence[int]:
        return (self._master, self._pidfd)

    def take(self) -> tuple[Sequence[tuple[int, bytes]], int]:
        end = select.poll()  # not select(2), which knows no descriptor above 1023
        end.register(self._pidfd, select.POLLIN)
        ended = bool(end.poll(0))  # what it has written is there by then
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            self._over = ended
            return (), 0
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says once no program has it open
                raise
            data = b""
        self._over = not data
        return [(STDOUT, data)], 0

    def over(self) -> bool:
        return self._over


class Ending(Enum):
    """Why a relay has come to its end."""

    ENDED = "the output is over, and the client has all of it"
    DETACHED = "the client has pressed the keys for it, or was asked to end by a signal"
    HUNG_UP = "the client is gone"


@dataclass
class Client:
    """Whom it is for. The descriptors stay the caller's."""

    stdin: int
    """-1 where nothing is to be read."""
    stdout: int
    stderr: int
    connection: int = -1
    """A socket on which a byte comes for each signal, and which hangs up with the client."""
    raw: RawMode | None = None
    """Its terminal, where that is in raw mode."""


@dataclass
class Relay:
    """One client at one container."""

    client: Client
    source: Source
    sink: int = -1
    """Where input goes, a descriptor that does not block; -1 where nobody reads it."""
    terminal: int = -1
    """The container's terminal, which follows the size of the client's."""
    keys: bytes = b""
    on_signal: Callable[[int], bool] = lambda number: True
    """Told of the client's signals; False ends the relay."""
    on_end: Callable[[], None] = lambda: None
    """Told when the client's input has come to its end and is passed on: :attr:`sink` may be closed then."""
    status: int = 0
    """What a command ends with that was detached: 128 + n for signal n."""
    _typed: bytearray = field(default_factory=bytearray)
    _stopped: bool = False
    _typed_all: bool = False
    _over: bool = False

    def run(self) -> Ending:
        """Relay until the end. Raises OSError."""
        with contextlib.ExitStack() as stack:
            client = self.client
            self._keys = DetachKeys(self.keys)
            self._in = _own(client.stdin, os.O_RDONLY, stack) if client.stdin >= 0 and self.sink >= 0 else -1
            self._out = {fd: _Out(_own(fd, os.O_WRONLY, stack)) for fd in (client.stdout, client.stderr)}
            ending = self._turn(set(self.source.descriptors()))  # it may be over already
            while not ending:
                ending = self._turn(self._wait())
            return ending

    def _turn(self, ready: set[int]) -> Ending | None:
        """Do what can be done now."""
        for act in (self._hear, self._type, self._pass_on, self._listen, self._print):
            ending = act(ready)
            if ending:
                return ending
        return None

    def _wait(self) -> set[int]:
        wanted: dict[int, int] = {}
        if self.client.connection >= 0:
            wanted[self.client.connection] = select.POLLIN
        if self._in >= 0 and not self._stopped and len(self._typed) < CHUNK:
            wanted[self._in] = select.POLLIN
        if self._typed:
            wanted[self.sink] = select.POLLOUT
        if self._has_room() and not self._over:
            for fd in self.source.descriptors():
                wanted[fd] = wanted.get(fd, 0) | select.POLLIN
        for out in self._out.values():
            if out.held:
                wanted[out.fd] = select.POLLOUT
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        return {fd for fd, _ in poll.poll()}

    def _has_room(self) -> bool:
        return all(len(out.held) < CHUNK for out in self._out.values())

    def _hear(self, ready: set[int]) -> Ending | None:
        """The client's signals, and its hanging up."""
        if self.client.connection not in ready:
            return None
        try:
            numbers = os.read(self.client.connection, 64)
        except OSError:
            numbers = b""
        if not numbers:
            return Ending.HUNG_UP
        for number in numbers:
            if not self._signal(number):
                self.status = 128 + number
                return Ending.DETACHED
        return None

    def _signal(self, number: int) -> bool:
        if number == signal.SIGTSTP:
            self._stopped = True
        elif number == signal.SIGCONT:
            self._stopped = False
            if self.client.raw:
                self.client.raw.set()
        if number in (signal.SIGCONT, signal.SIGWINCH):
            if self.terminal >= 0:
                set_window_size(self.terminal, window_size(self.client.stdout))
            return True
        return number == signal.SIGTSTP or self.on_signal(number)

    def _type(self, ready: set[int]) -> Ending | None:
        """What the client types. The end of a pipe is no more than that; a terminal's is the client's."""
        if self._in not in ready:
            return None
        try:
            data = os.read(self._in, CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self._in, self._typed_all = -1, True
            return Ending.HUNG_UP if self.client.raw else None
        passed, pressed = self._keys.feed(data)
        self._typed += passed
        if pressed:
            self._pass_on({self.sink})
            return Ending.DETACHED
        return None

    def _pass_on(self, ready: set[int]) -> Ending | None:
        if self._typed and self.sink in ready:
            try:
                del self._typed[: os.write(self.sink, self._typed)]
            except BlockingIOError:
                pass
            except OSError:  # nobody reads it any more
                self._typed.clear()
                self._in = -1
        if self._typed_all and not self._typed:
            self._typed_all = False
            self.on_end()
        return None

    def _listen(self, ready: set[int]) -> Ending | None:
        if not self._has_room() or ready.isdisjoint(self.source.descriptors()):
            return None
        self._over = self.source.over()  # asked first: what comes in between is taken the next time
        pieces, lost = self.source.take()
        if lost:
            note = f"\r\n[pycore: {lost} bytes were not taken in time, and are missing here]\r\n"
            self._out[self.client.stderr].held += note.encode()
        for stream, data in pieces:
            self._out[self.client.stdout if stream == STDOUT else self.client.stderr].held += data
        return None

    def _print(self, _: set[int]) -> Ending | None:
        try:
            for out in self._out.values():
                out.write()
        except OSError:
            return Ending.HUNG_UP
        return Ending.ENDED if self._over and not any(out.held for out in self._out.values()) else None


@dataclass
class _Out:
    """A stream of the client's, and what it has not taken yet."""

    fd: int
    held: bytearray = field(default_factory=bytearray)

    def write(self) -> None:
        """Write as much as it takes now."""
        if self.held:
            with contextlib.suppress(BlockingIOError):
                del self.held[: os.write(self.fd, self.held)]


def _own(fd: int, flags: int, stack: contextlib.ExitStack) -> int:
    """A client's terminal or pipe, opened once more: one that does not block us, while the client's own does as ever.

    Anything else is used as it is: a file's place must be shared, and a file never blocks for long.
    """
    opened = -1
    if os.isatty(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode):
        with contextlib.suppress(OSError):  # nobody is at the other end: the first write will say so
            opened = os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    opened = opened if opened >= 0 else os.dup(fd)
    stack.callback(os.close, opened)
    return opened
