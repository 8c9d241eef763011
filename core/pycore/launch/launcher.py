"""The engine's side of a launch: starts the spawner, asks it for containers, hears of their ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pycore.errors import PycoreError, StartError, SupervisorError, from_json
from pycore.launch import interpreter
from pycore.launch.address import connect, listen
from pycore.launch.channel import Channel
from pycore.launch.request import Request

SOCKET_FILE = "spawner.sock"

ExitHandler = Callable[[str, int, float], None]
"""Called with container id, exit status (negative: the signal) and the time of the end in seconds since 1970."""


@dataclass(frozen=True)
class Stdio:
    """Descriptors for the program's standard streams, and read ends of its output to be kept by the spawner.

    The launcher does not close them.
    """

    stdin: int
    stdout: int
    stderr: int
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Adopted:
    """A container that was there before this launcher came."""

    id: str
    pid: int
    pidfd: int
    """-1 where it has ended while nobody listened; then ``status`` and ``ended`` say how and when."""
    outputs: tuple[int, ...] = ()
    status: int | None = None
    ended: float = 0.0


class Starting(Protocol):
    """A container's process between clone and exec."""

    pid: int
    pidfd: int

    def mapped(self) -> None:
        """Its id maps are written: it may go on to the enter phase."""
        ...

    def go(self) -> None:
        """Let it confine itself and exec. Returns when the program runs; raises StartError."""
        ...

    def abandon(self) -> PycoreError | None:
        """Kill it. Returns what it had said of a failure of its own, which came before any of ours."""
        ...


class Launcher(Protocol):
    """Starts containers; a fake one in :mod:`pycore.testing` does so without a process."""

    def launch(self, request: Request, stdio: Stdio) -> Starting:
        """Clone the container's process. Raises StartError."""
        ...

    def adopt(self) -> list[Adopted]:
        """The containers that run already; called once, before the first launch."""
        ...

    def kill(self, identity: str, pidfd: int, number: int) -> None:
        """Send a signal to a container's first process; one that has ended is fine."""
        ...

    def close(self) -> None:
        """Let go of the spawner; it ends when its last container has."""
        ...


@dataclass
class Launched:
    """The real :class:`Starting`."""

    name: str
    channel: Channel
    pid: int = 0
    pidfd: int = -1
    _error: PycoreError | None = field(default=None)

    def wait_clone(self) -> None:
        """Until the process exists. Raises StartError."""
        while not self.pid and self._listen():
            pass
        if not self.pid:
            raise self._error or StartError(f"{self.name}: the spawner ended before it could clone")

    def _listen(self) -> bool:
        """Take one frame, of the spawner or of the child, in whatever order they come; False when both are done."""
        received = self.channel.receive()
        if received is None:
            return False
        message, fds = received
        if "launched" in message:
            self.pid, self.pidfd = message["launched"], fds[0]
        elif "error" in message:
            self._error = from_json(message["error"])
        return True

    def mapped(self) -> None:
        self._say("mapped")

    def go(self) -> None:
        self._say("go")
        while self._listen():
            pass
        self.channel.close()
        if self._error:
            raise self._error

    def _say(self, word: str) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it failed: what it said is still to be read
            self.channel.send({word: True})

    def abandon(self) -> PycoreError | None:
        if self.pidfd >= 0:
            send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(OSError, ValueError):
            while self._listen():
                pass
        self.channel.close()
        return self._error


def send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2); a process that has ended is fine."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


class SpawnerLauncher:
    """The real launcher: a spawner per run dir, reached through a socket, started where there is none."""

    def __init__(self, run_dir: Path, on_exit: ExitHandler) -> None:
        self.run_dir = run_dir
        self.on_exit = on_exit
        self.pid = 0
        self._living: list[Adopted] = []
        self._adopted = threading.Event()
        self._channel = self._connect() or self._start()
        self._reader = threading.Thread(target=self._read, name="pycore-exits", daemon=True)
        self._reader.start()

    # -- the spawner -------------------------------------------------------------------------------------

    def _connect(self) -> Channel | None:
        """Knock at a spawner that is there already: one that outlived its supervisor."""
        sock = connect(self.run_dir, SOCKET_FILE)
        return Channel(sock) if sock else None

    def _start(self) -> Channel:
        """Start a spawner; the first engine talks to it through a pair, a later one knocks at its socket."""
        ours, theirs = Channel.pair()
        stderr = None if os.environ.get("PYCORE_DEBUG") else -1
        environment = {"PATH": os.environ.get("PATH", "")}
        try:
            with listen(self.run_dir, SOCKET_FILE) as listener:
                fds = (theirs.fileno(), listener.fileno())
                self.pid = interpreter.start("pycore.launch.spawner", [str(self.run_dir)], fds, environment, stderr)
        except OSError as error:
            ours.close()
            raise SupervisorError(f"the spawner cannot be started: {error}") from error
        finally:
            theirs.close()
        return ours

    def _read(self) -> None:
        """Hear of ends, until the spawner is gone."""
        while True:
            try:
                received = self._channel.receive()
            except (OSError, ValueError):
                return
            if received is None:
                return
            message, fds = received
            self._heard(message, fds)

    def _heard(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        if "living" in message:
            self._found(message, fds)
        elif "exited" in message:
            self.on_exit(message["exited"], message["status"], message["time"])
        elif "adopted" in message:
            self._adopted.set()

    def _found(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        """A container that was there before us: it runs, or it has ended while nobody listened."""
        identity, pid = message["living"], message["pid"]
        if pid:
            self._living.append(Adopted(identity, pid, fds[0], tuple(fds[1:])))
        else:
            self._living.append(Adopted(identity, 0, -1, tuple(fds), message["status"], message["time"]))

    # -- Launcher ----------------------------------------------------------------------------------------

    def adopt(self) -> list[Adopted]:
        self._channel.send({"adopt": True})
        if not self._adopted.wait(10):
            raise SupervisorError("the spawner does not answer")
        return self._living

    def launch(self, request: Request, stdio: Stdio) -> Starting:
        ours, theirs = Channel.pair()
        launched = Launched(request.name, ours)
        try:
            self._channel.send(
                {"launch": request.to_json()},
                (stdio.stdin, stdio.stdout, stdio.stderr, theirs.fileno(), *stdio.outputs),
            )
            theirs.close()
            launched.wait_clone()
        except BaseException as error:
            theirs.close()
            ours.close()
            if isinstance(error, OSError):
                raise SupervisorError(f"the spawner is gone: {error}") from error
            raise
        return launched

    def kill(self, identity: str, pidfd: int, number: int) -> None:
        send_signal(pidfd, number)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(5)
        self._channel.close()
        if self.pid:
            threading.Thread(target=_reap, args=(self.pid,), daemon=True).start()


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
