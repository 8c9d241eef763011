"""Starts containers on the fake kernel: every operation runs, and no process does."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pycore.errors import PycoreError, StartError
from pycore.launch.child import operation_error
from pycore.launch.launcher import Adopted, ExitHandler, Launcher, Starting, Stdio
from pycore.launch.request import Request
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Phase, Step
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
        process.close()
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

    def __post_init__(self) -> None:
        self._ctx = Context(self.kernel, self.request.name, environment=dict(self.request.environment))

    def hold(self) -> None:
        """What comes before the id maps: joining the cgroup, taking hold of the host's things."""
        self.kernel.mount_private()
        self._run(operation for operation in self._of(Phase.ENTER) if operation.step is Step.JOIN)
        for operation in self._of(Phase.ENTER):
            if isinstance(operation, InsideOperation):
                self._act(operation, operation.hold)

    def mapped(self) -> None:
        operations = [operation for operation in self._of(Phase.ENTER) if operation.step is not Step.JOIN]
        self._run(operation for operation in operations if operation.step is Step.ROOT)
        if self._ctx.root >= 0:
            self.kernel.enter_root(self._ctx.root)
        self._run(operation for operation in operations if operation.step is not Step.ROOT)
        os.close(self.kernel.make_place(self.request.working_dir))

    def go(self) -> None:
        self._run(self._of(Phase.CONFINE))
        self.executed = True
        self.close()

    def abandon(self) -> None:
        self.spawner.end(self.request.id, -signal.SIGKILL)

    def close(self) -> None:
        """Close what is open inside, as exec does."""
        for fd in self.kernel.descriptors:
            os.close(fd)
        self.kernel.descriptors.clear()

    def _of(self, phase: Phase) -> list[Operation]:
        return [operation for operation in self.request.operations if operation.step.phase is phase]

    def _run(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            self._act(operation, operation.do)

    def _act(self, operation: Operation, act: Callable[[Context], None]) -> None:
        try:
            act(self._ctx)
        except OSError as error:
            raise operation_error(StartError, operation, error, self.request.name) from error


class _FakeLauncher(Launcher):
    """One engine's side of a spawner."""

    def __init__(self, spawner: FakeSpawner) -> None:
        self.spawner = spawner

    def launch(self, request: Request, stdio: Stdio) -> Starting:
        process = self.spawner.start(request)
        try:
            process.hold()
        except PycoreError:
            process.abandon()
            os.close(process.pidfd)
            raise
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
