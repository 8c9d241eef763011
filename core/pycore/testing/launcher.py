"""Starts containers on the fake kernel: every operation runs, and no process does."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec

from pycore.errors import PycoreError, StartError
from pycore.launch import inside
from pycore.launch.launcher import Adopted, ExitHandler, Known, Launcher, Starting, Stdio
from pycore.launch.request import Request
from pycore.ops import Context
from pycore.testing.fake import FakeKernel

P = ParamSpec("P")

_HARMLESS = (0, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT)


class FakeSpawner:
    """The parent of all containers of one fake kernel. It outlives engines: ``Engine(launcher=spawner.connect)``.

    A program runs until it is signalled, or until a test calls :meth:`end`.
    """

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.running: dict[str, FakeProcess] = {}
        """Container id to its process."""
        self.more: dict[str, FakeProcess] = {}
        """Id of a request to one more process of a container."""
        self.ended: dict[str, tuple[int, float]] = {}
        """Ends that no engine was there to hear of."""
        self._pids = itertools.count(1000)
        self._pidfds: dict[int, FakeProcess] = {}
        self._on_exit: ExitHandler | None = None

    def connect(self, on_exit: ExitHandler) -> Launcher:
        """What an engine asks for as its launcher. What an earlier one had half started ends, as it does really."""
        self._on_exit = None
        for process in [*self.running.values(), *self.more.values()]:
            if not process.executed and not process.held:
                self.end(process.request.id, 125)
        self._on_exit = on_exit
        return _FakeLauncher(self)

    def disconnect(self) -> None:
        """The engine has let go; containers run on."""
        self._on_exit = None

    def start(self, request: Request, held: bool = False, network_of: int = -1) -> FakeProcess:
        """Clone: the process is there, and takes hold of what it needs of the host."""
        pid = next(self._pids)
        beside = self._pidfds[os.fstat(network_of).st_ino].pid if network_of >= 0 else 0
        process = FakeProcess(request, pid, -1, self, self.kernel.add_process(pid, beside), held=held)
        process.pidfd = self.pidfd(process)
        self.running[request.id] = process
        return process

    def join(self, request: Request, pidfd: int) -> FakeProcess:
        """Clone one more process, for the container of a pidfd. Raises StartError where it has ended."""
        first = self._pidfds.get(os.fstat(pidfd).st_ino)
        if first is None or self.running.get(first.request.id) is not first:
            raise inside.ended(request.name)
        pid = next(self._pids)
        process = FakeProcess(request, pid, -1, self, first.kernel.join_process(pid), first=first)
        process.pidfd = self.pidfd(process)
        self.more[request.id] = process
        return process

    def pidfd(self, process: FakeProcess) -> int:
        """A descriptor that stands for a process, and can be closed as any other."""
        fd = os.memfd_create(f"process {process.pid}")
        self._pidfds[os.fstat(fd).st_ino] = process
        return fd

    def end(self, identity: str, status: int = 0) -> None:
        """The program of a container ends, or one more process: with an exit status, or by a signal if negative."""
        process = self.running.pop(identity, None)
        for name, each in list(self.more.items()) if process else ():
            if each.first is process:
                self.end(name, -signal.SIGKILL)
        process = process or self.more.pop(identity, None)
        if process is None:
            return
        self.kernel.end_process(process.pid)
        process.kernel.close_all()
        process.hang_up()
        if self._on_exit:
            self._on_exit(identity, status, time.time())
        elif process.first is None:
            self.ended[identity] = (status, time.time())

    def adopt(self, known: Known) -> list[Adopted]:
        """What runs, and how what is believed to run has ended."""
        found = [
            Adopted(identity, process.pid, pidfd := self.pidfd(process), starting=process.waiting(pidfd))
            for identity, process in self.running.items()
        ]
        told = {each.id for each in found}
        ends = self.ended | {identity: self.ended.get(identity, (None, time.time())) for identity, _, _ in known}
        self.ended = {}
        return [*found, *(Adopted(name, 0, -1, {}, *end) for name, end in ends.items() if name not in told)]


@dataclass(eq=False)
class FakeProcess(Starting):
    """A container's process; ``kernel`` is the host as it sees it, with what it set for itself in ``kernel.me``."""

    request: Request
    pid: int
    pidfd: int
    spawner: FakeSpawner
    kernel: FakeKernel
    held: bool = False
    """Whether it waits before its program for as long as anybody likes."""
    first: FakeProcess | None = None
    """The container's first process, for one that is not."""
    executed: bool = False
    _terminal: int = -1
    """Its end of its terminal; ours is whoever's asked for it."""
    _failure: PycoreError | None = None

    def __post_init__(self) -> None:
        first, count = self.request.ids
        environment = dict(self.request.environment)
        self._ctx = Context(self.kernel, self.request.name, root_id=first, id_count=count, environment=environment)

    def hold(self) -> None:
        """What comes before the id maps. It has been cloned by then, so a failure is heard of only later."""
        self._note(inside.take_hold, self.request, self._ctx)

    def join(self) -> None:
        """The same for one more process, which needs no maps."""
        self._note(inside.join, self.request, self._ctx, -1, 0)

    def mapped(self) -> None:
        if self.first is None and not self._failure:
            self._note(inside.enter, self.request, self._ctx)

    def _raise(self) -> None:
        if self._failure:
            raise self._failure

    def entered(self) -> int:
        self._raise()
        if not self.request.terminal or self._terminal >= 0:
            return -1
        master, self._terminal = os.openpty()
        return master

    def go(self) -> None:
        self._raise()
        if not self._is_there():
            raise StartError(f"{self.request.name}: its process was ended before it became the program")
        self._note(inside.confine, self.request, self._ctx)
        self._raise()
        self.executed = True
        self.kernel.close_all()

    def close(self) -> None:
        """There is nothing to let go of."""

    def abandon(self) -> PycoreError | None:
        if self._is_there():
            self.spawner.end(self.request.id, -signal.SIGKILL)
        return self._failure

    def waiting(self, pidfd: int) -> Starting | None:
        """The way for a new engine to let it go on; None where its program runs."""
        self.pidfd = pidfd
        return None if self.executed else self

    def hang_up(self) -> None:
        """Let go of its terminal, as a process that ends does."""
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _is_there(self) -> bool:
        return self in (self.spawner.running.get(self.request.id), self.spawner.more.get(self.request.id))

    def _note(self, act: Callable[P, None], *arguments: P.args, **keywords: P.kwargs) -> None:
        """Keep an error until somebody listens, as the child's channel does; the core's own acts have no words."""
        try:
            act(*arguments, **keywords)
        except PycoreError as error:
            self._failure = error
        except OSError as error:
            self._failure = StartError(f"{self.request.name}: {type(error).__name__}: {error}")


class _FakeLauncher(Launcher):
    """One engine's side of a spawner."""

    def __init__(self, spawner: FakeSpawner) -> None:
        self.spawner = spawner

    def launch(self, request: Request, stdio: Stdio, *, hold: bool = False, network_of: int = -1) -> Starting:
        process = self.spawner.start(request, hold, network_of)
        process.hold()
        return process

    def execute(self, request: Request, target_pidfd: int, stdio: Stdio) -> Starting:
        process = self.spawner.join(request, target_pidfd)
        process.join()
        return process

    def adopt(self, known: Known = ()) -> list[Adopted]:
        return self.spawner.adopt(known)

    def keep(self, identity: str, name: str, fd: int) -> None:
        pass

    def release(self, identity: str, name: str) -> None:
        pass

    def kill(self, identity: str, pidfd: int, number: int) -> None:
        if number not in _HARMLESS:
            self.spawner.end(identity, -number)

    def close(self) -> None:
        self.spawner.disconnect()
