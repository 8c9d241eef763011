"""Programs run inside a container that runs: ``exec``, and health checks that are commands."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pycore.errors import Conflict
from pycore.hookspecs import Host
from pycore.launch.inside import ended
from pycore.launch.launcher import Launcher, Starting, Stdio, give_up
from pycore.launch.namespaces import Namespaces
from pycore.launch.request import Request
from pycore.life.live import Live, exit_code
from pycore.linux.kernel import Kernel
from pycore.ops import Context, Operation
from pycore.plugins import Plugins
from pycore.spec import Container, Process
from pycore.steps import Phase, Step

OUTPUT = 4096
"""Bytes of a check's output that are kept: its end."""


@dataclass
class Execution:
    """A program that runs in a container beside the container's own."""

    id: str
    container: str
    """The container's id."""
    pid: int = 0
    pidfd: int = -1
    terminal: int = -1
    """The master of its terminal, where it has one; ours."""
    exited: threading.Event = field(default_factory=threading.Event)
    status: int | None = None
    """Negative for a signal; None where nobody can know, or while it runs."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _act: Callable[[int | None], object] | None = None

    def end(self, status: int | None) -> None:
        """It has ended."""
        with self._lock:
            self.status = status
            self.exited.set()
        if self._act:
            self._act(status)

    def when_ended(self, act: Callable[[int | None], object]) -> None:
        """Have something quick done with its status when it has ended, at once where it has."""
        with self._lock:
            if not self.exited.is_set():
                self._act = act
                return
        act(self.status)

    def close(self) -> None:
        """Let go of it; it may run on."""
        for fd in (self.pidfd, self.terminal):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.terminal = -1

    def wait(self) -> int | None:
        """Its exit status as a shell says it once it has ended, None where nobody can know."""
        self.exited.wait()
        return exit_code(self.status)


class Executions:
    """All that is run inside the containers of one run dir."""

    def __init__(self, launcher: Callable[[], Launcher], plugins: Plugins, host: Callable[[], Host]) -> None:
        self._launcher, self._plugins, self._host = launcher, plugins, host
        self._running: dict[str, Execution] = {}
        self._numbers = itertools.count(1)

    def of(self, identity: str) -> list[Execution]:
        """What runs in a container beside its own program."""
        return [each for each in list(self._running.values()) if each.container == identity]

    def heard(self, identity: str, status: int | None) -> bool:
        """Note an end; False where it is none of ours."""
        execution = self._running.pop(identity, None)
        if execution:
            execution.end(status)
        return execution is not None

    def start(
        self,
        live: Live,
        container: Container,
        command: Sequence[str],
        stdio: Stdio,
        *,
        terminal: bool = False,
        window: tuple[int, int] = (0, 0),
    ) -> Execution:
        """Run a program in all of a container's namespaces, with its limits, filter and powers.

        ``container`` says with which user, environment and powers: the container's own, or one altered.
        With ``terminal`` it has one of its own, with so many rows and columns, in the place of ``stdio``, which stays
        the caller's. Raises Conflict where the container does not run, StartError.
        """
        if live.exited.is_set() or live.starting:
            raise Conflict(f"{container.full_name} is not running", hint=f"pycore start {container.full_name}")
        if live.record.paused:
            raise Conflict(f"{container.full_name} is paused", hint=f"pycore unpause {container.full_name}")
        execution = Execution(f"{container.id}.{next(self._numbers)}", container.id)
        process = container[Process]
        request = Request(
            id=execution.id,
            name=container.full_name,
            operations=self._operations(live, container),
            argv=tuple(command),
            environment=process.environment,
            working_dir=process.working_dir,
            terminal=terminal,
            window=window,
        )
        self._join(execution, live, request, stdio, terminal)
        return execution

    def call(self, live: Live | None, container: Container, call: str, words: Sequence[str], stdio: Stdio) -> Execution:
        """Call a function of pycore (:attr:`Request.call`) where a container's files are as it sees them.

        Where the container has no process, its file systems are mounted for this call alone; the caller holds its
        turn meanwhile. Raises StartError.
        """
        execution = Execution(f"{container.id}.{next(self._numbers)}", container.id)
        request = Request(execution.id, container.full_name, (), tuple(words), {}, call=call)
        if live:
            self._join(execution, live, request, stdio)
            return execution
        host = self._host()
        enter = self._plugins.describe(Phase.ENTER, container, host)
        maps = [each for each in self._plugins.describe(Phase.ATTACH, container, host) if each.step is Step.IDMAP]
        namespaces = Namespaces(("user", "mount") if maps else ("mount",))
        mounts = (each for each in enter if each.step in (Step.ROOT, Step.MOUNT))
        mounted = replace(request, operations=(namespaces, *mounts))
        ctx = Context(host.look if isinstance(host.look, Kernel) else Kernel(), container=container.full_name)

        def map_ids(starting: Starting) -> None:
            ctx.pid = starting.pid
            for operation in maps:
                operation.do(ctx)

        self._begin(execution, lambda: self._launcher().launch(mounted, stdio), before=map_ids)
        return execution

    def _join(self, execution: Execution, live: Live, request: Request, stdio: Stdio, terminal: bool = False) -> None:
        """The process may end meanwhile, and the number of its descriptor be another's: it is held by one of ours."""
        target = live.process()
        if target < 0:
            raise ended(request.name)
        try:
            self._begin(execution, lambda: self._launcher().execute(request, target, stdio), terminal)
        finally:
            os.close(target)

    def _begin(
        self,
        execution: Execution,
        launch: Callable[[], Starting],
        terminal: bool = False,
        before: Callable[[Starting], None] = lambda starting: None,
    ) -> None:
        """Bring it to life, ``before`` it goes inside; after a failure nothing of it is left."""
        self._running[execution.id] = execution
        try:
            starting = launch()
            execution.pid, execution.pidfd = starting.pid, starting.pidfd
            try:
                before(starting)
                starting.mapped()
                execution.terminal = starting.entered() if terminal else -1
                starting.go()
            except BaseException as error:
                give_up(starting, error)
        except BaseException:
            self._running.pop(execution.id, None)
            execution.close()
            raise

    def _operations(self, live: Live, container: Container) -> tuple[Operation, ...]:
        """Joining is the launcher's part; of the container's operations those count that hold for each process.

        Asking all plugins takes longer than a clone, so it is done once for a container as it was made.
        """
        own = live.container or container
        if live.more is None or live.more[0] is not own:
            enter = self._plugins.describe(Phase.ENTER, own, self._host())
            joins = tuple(each for each in enter if each.step is Step.JOIN)
            live.more = own, joins, self._plugins.describe(Phase.CONFINE, own, self._host())
        _, joins, confine = live.more
        return joins + (confine if container is own else self._plugins.describe(Phase.CONFINE, container, self._host()))

    def kill(self, execution: Execution, number: int) -> None:
        """Send it a signal; one that has ended is fine."""
        if not execution.exited.is_set() and execution.pidfd >= 0:
            self._launcher().kill(execution.id, execution.pidfd, number)


@dataclass(frozen=True)
class InsideOf:
    """A running container as a health check sees it (:class:`pycore.hookspecs.Inside`)."""

    executions: Executions
    live: Live
    container: Callable[[], Container]

    @property
    def pid(self) -> int:
        """Its first process, as the host sees it."""
        return self.live.record.pid

    @property
    def pidfd(self) -> int:
        """The same as a descriptor."""
        return self.live.pidfd

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, bytes]:
        """Run a program, and kill it after ``timeout`` seconds; (exit status or None, the end of its output)."""
        deadline = time.monotonic() + timeout
        read, write = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                stdio = Stdio(null, write, write)
                execution = self.executions.start(self.live, self.container(), command, stdio)
            finally:
                os.close(write)
                os.close(null)
            with contextlib.closing(execution):
                output, ended = _collect(read, execution, deadline)
                if not ended:
                    self.executions.kill(execution, signal.SIGKILL)
                    execution.exited.wait(1.0)
                    return None, output
                return execution.status, output
        finally:
            os.close(read)


def _collect(read: int, execution: Execution, deadline: float) -> tuple[bytes, bool]:
    """The end of what a program writes, and whether it ended in time. What it left running may hold the pipe."""
    output = b""
    poll = select.poll()  # select(2) takes no descriptor above 1023
    poll.register(read, select.POLLIN)
    poll.register(execution.pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:  # it may write for ever
        ready = [fd for fd, _ in poll.poll(left * 1000)]
        if read in ready:
            data = os.read(read, 1 << 16)
            output = (output + data)[-OUTPUT:]
            if not data:
                poll.unregister(read)
        elif execution.pidfd in ready:  # ended, and nothing is in the pipe
            break
    return output, execution.exited.wait(max(0.0, deadline - time.monotonic()))
