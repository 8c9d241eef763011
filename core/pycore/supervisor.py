"""The resident: an engine behind a socket. It ends when it has nothing to look after.

The first command that needs it starts it; ``pycore supervise`` runs it in the foreground, for systemd.
A client sends its words, its environment and its standard streams; the verb runs here and writes straight
to the client's descriptors. What goes back is the exit status alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pycore.client import REQUEST_VERSION, SOCKET_FILE
from pycore.errors import PycoreError
from pycore.launch import interpreter
from pycore.launch.address import connect, listen
from pycore.launch.request import DEFAULT_PATH

if TYPE_CHECKING:
    from pycore.engine import Engine

LINGER = "10"
"""Seconds without a container and without a client after which the supervisor ends; PYCORE_LINGER changes it."""
MAX_REQUEST = 16 << 20


def start_supervisor(run_dir: str, data_dir: str) -> None:
    """Start a supervisor in the background, unless somebody else just did. Raises OSError.

    The socket is bound and listens before the new process starts, so whoever connects is served once it is
    up: nobody has to try again and again.
    """
    os.makedirs(run_dir, 0o711, exist_ok=True)
    lock = os.open(f"{run_dir}/starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        probe = connect(run_dir, SOCKET_FILE)
        if probe:
            probe.close()
            return
        with listen(run_dir, SOCKET_FILE) as listener:
            _spawn(listener, run_dir, data_dir)
    finally:
        os.close(lock)


def _spawn(listener: socket.socket, run_dir: str, data_dir: str) -> None:
    environment = {"PATH": DEFAULT_PATH, "PYCORE_LINGER": os.environ.get("PYCORE_LINGER", LINGER)}
    log = os.open(f"{run_dir}/supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        interpreter.start("pycore.supervisor", [run_dir, data_dir], [listener.fileno()], environment, log)
    finally:
        os.close(log)


def main() -> None:
    """Entered by a fresh interpreter: descriptor 3 listens, argv[1] is the run dir, argv[2] the data dir."""
    os.chdir("/")
    os.umask(0o022)
    serve(socket.socket(fileno=interpreter.FIRST), Path(sys.argv[1]), Path(sys.argv[2]), _linger())


def _linger() -> float:
    try:
        return max(0.0, float(os.environ["PYCORE_LINGER"]))
    except (KeyError, ValueError):
        return float(LINGER)


@dataclass
class Request:
    """What a client asks for."""

    version: str
    data_dir: str
    directory: Path
    words: list[str]
    environment: dict[str, str]
    stdio: tuple[int, int, int]


def serve(listener: socket.socket, run_dir: Path, data_dir: Path, linger: float | None) -> None:
    """Serve clients until there is nothing to look after for ``linger`` seconds; None means until SIGTERM."""
    from pycore.engine import Engine

    server = Server(listener, Engine(run_dir, data_dir), linger)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end)
    server.run()


class Server:
    """The accept loop; a thread per client."""

    def __init__(self, listener: socket.socket, engine: Engine, linger: float | None) -> None:
        self.listener, self.engine, self.linger = listener, engine, linger
        self.clients = 0
        self._count = threading.Lock()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def end(self, *_: object) -> None:
        """Stop serving; containers run on. A signal handler, and safe as one."""
        os.write(self._woken, b"x")

    def run(self) -> None:
        """Take over what runs, then accept until the end."""
        with contextlib.suppress(PycoreError):  # why it cannot is told to whoever asks for something
            self.engine.open()
        idle_since = time.monotonic()
        while True:
            descriptors = (self.listener.fileno(), self._wake)
            ready, _, _ = select.select(descriptors, (), (), self._patience(idle_since))
            if self._wake in ready:
                break
            if descriptors[0] in ready:
                connection, _ = self.listener.accept()
                self._add(1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            if self.clients or self.engine.busy():
                idle_since = time.monotonic()
            elif self.linger is not None and time.monotonic() - idle_since >= self.linger:
                break
        self.engine.close()

    def _patience(self, idle_since: float) -> float | None:
        if self.linger is None:
            return None
        if self.clients or self.engine.busy():
            return self.linger
        return max(0.0, idle_since + self.linger - time.monotonic())

    def _add(self, number: int) -> None:
        with self._count:
            self.clients += number

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                request = receive(connection)
                if request:
                    self._answer(connection, request)
        except OSError:
            pass  # the client is gone
        finally:
            self._add(-1)

    def _answer(self, connection: socket.socket, request: Request) -> None:
        from pycore.cli import Session, perform

        session = Session(self.engine, request.directory, request.environment, request.stdio, connection)
        try:
            refused = self._refusal(request)
            if refused:
                session.err(f"pycore: {refused}\n")
            status = 1 if refused else perform(session, request.words)
        finally:
            for fd in request.stdio:
                os.close(fd)
        connection.sendall(status.to_bytes(4, "big"))

    def _refusal(self, request: Request) -> str:
        if request.version != REQUEST_VERSION:
            return "the supervisor that runs is of another version"
        if request.data_dir != str(self.engine.data_dir):
            return f"the supervisor of {self.engine.run_dir} keeps its data in {self.engine.data_dir}"
        return ""


def receive(connection: socket.socket) -> Request | None:
    """Read a client's request with its three descriptors; None where it is not one."""
    from pycore.launch.channel import received_fds

    # Not socket.recv_fds: it drops its flags, and a spawner that is being started would inherit the descriptors.
    data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 3), socket.MSG_CMSG_CLOEXEC)
    fds = received_fds(ancillary)
    if len(fds) != 3 or len(data) < 4:
        for fd in fds:
            os.close(fd)
        return None
    size, body = int.from_bytes(data[:4], "big"), bytearray(data[4:])
    while len(body) < size <= MAX_REQUEST:
        more = connection.recv(size - len(body))
        if not more:
            break
        body += more
    version, data_dir, directory, count, *rest = body.decode("utf-8", "surrogateescape").split("\0")
    words, variables = rest[: int(count)], rest[int(count) :]
    environment = {name: value for name, _, value in (variable.partition("=") for variable in variables)}
    return Request(version, data_dir, Path(directory), words, environment, (fds[0], fds[1], fds[2]))
