"""Starts containers on the fake kernel: every operation runs, and no process does."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Generator
from dataclasses import dataclass

from pycore.errors import PycoreError, StartError
from pycore.launch import inside
from pycore.launch.launcher import Adopted, ExitHandler, Launcher, Starting, Stdio
from pycore.launch.request import Request
from pycore.ops import Context
from pycore.testing.fake import FakeKernel

_HARMLESS = (0, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT)


class FakeSpawner:
    """The parent of all containers of one fake kernel. It outlives engines: ``Engine(launcher=spawner.connect)``.

    A program runs until it is signalled, or until a test calls :meth:`end`.
    """

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.running: dict[str, FakeProcess] = {}
        """Container id to its process."""
        self._pids = itertools.count(1000)
        self._on_exit: ExitHandler | None = None

    def connect(self, on_exit: ExitHandler) -> Launcher:
        """What an engine asks for as its launcher."""
        self._on_exit = on_exit
        return _FakeLauncher(self)

    def disconnect(self) -> None:
        """The engine has let go; containers run on."""
        self._on_exit = None

    def start(self, request: Request) -> FakeProcess:
        """Clone: the process is there, and takes hold of what it needs of the host."""
        pid = next(self._pids)
        process = FakeProcess(request, pid, _descriptor(), self, self.kernel.add_process(pid))
        self.running[request.id] = process
        return process

    def end(self, identity: str, status: int = 0) -> None:
        """The program of a container ends: with an exit status, or by a signal if it is negative."""
        process = self.running.pop(identity, None)
        if process is None:
            return
        self.kernel.end_process(process.pid)
        process.kernel.close_all()
        if self._on_exit:
            self._on_exit(identity, status, time.time())


@dataclass
class FakeProcess(Starting):
    """A container's process; ``kernel`` is the host as it sees it, with what it set for itself in ``kernel.me``."""

    request: Request
    pid: int
    pidfd: int
    spawner: FakeSpawner
    kernel: FakeKernel
    executed: bool = False
    _failure: PycoreError | None = None

    def __post_init__(self) -> None:
        self._ctx = Context(self.kernel, self.request.name, environment=dict(self.request.environment))

    def hold(self) -> None:
        """What comes before the id maps. It has been cloned by then, so a failure is heard of only later."""
        try:
            with self._reported():
                inside.take_hold(self.request, self._ctx)
        except PycoreError as error:
            self._failure = error

    def mapped(self) -> None:
        if self._failure:
            raise self._failure
        with self._reported():
            inside.enter(self.request, self._ctx)

    def go(self) -> None:
        with self._reported():
            inside.confine(self.request, self._ctx)
        self.executed = True
        self.kernel.close_all()

    def abandon(self) -> None:  # a failure of its own was raised already, where it happened
        self.spawner.end(self.request.id, -signal.SIGKILL)

    @contextlib.contextmanager
    def _reported(self) -> Generator[None, None, None]:
        """An error of the core's own acts, as the child reports it."""
        try:
            yield
        except OSError as error:
            raise StartError(f"{self.request.name}: {type(error).__name__}: {error}") from error


class _FakeLauncher(Launcher):
    """One engine's side of a spawner."""

    def __init__(self, spawner: FakeSpawner) -> None:
        self.spawner = spawner

    def launch(self, request: Request, stdio: Stdio) -> Starting:
        process = self.spawner.start(request)
        process.hold()
        return process

    def adopt(self) -> list[Adopted]:
        return [Adopted(identity, process.pid, _descriptor()) for identity, process in self.spawner.running.items()]

    def kill(self, identity: str, pidfd: int, number: int) -> None:
        if number not in _HARMLESS:
            self.spawner.end(identity, -number)

    def close(self) -> None:
        self.spawner.disconnect()


def _descriptor() -> int:
    """A descriptor of its own that can be closed as any other."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
