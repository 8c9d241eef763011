"""One container's life: prepared, started, stopped, changed, removed. What the engine does to each of many.

A container's record is written before its operations run, so that at any moment the record names all that
may have to be taken back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from pycore.errors import PycoreError, StartError
from pycore.execute import Executor
from pycore.hookspecs import Host
from pycore.launch.idmap import root_id
from pycore.launch.launcher import Adopted, ExitHandler, Launcher, Starting, Stdio
from pycore.launch.request import Request
from pycore.linux.kernel import Kernel
from pycore.logs import LogPump, log_dir
from pycore.ops import Context, Operation, Record, to_record
from pycore.plan import Action, Description, container_of, describe, difference, source_of
from pycore.plugins import Plugins
from pycore.spec import Container, Process, parse_duration, signal_number
from pycore.state import ContainerRecord, State
from pycore.steps import Step

KILL_WAIT = 10.0
"""Seconds that a process may take to be gone after SIGKILL; longer means that it hangs in the kernel."""


@dataclass
class Live:
    """A container whose process runs."""

    record: ContainerRecord
    pidfd: int
    drained: threading.Event | None = None
    """Set when all of its output is in the log; None where no log is kept."""
    exited: threading.Event = field(default_factory=threading.Event)
    """The process has ended; ``status`` and ``ended`` say how and when."""
    settled: threading.Event = field(default_factory=threading.Event)
    """What was attached to it is undone, and the record says that it has stopped."""
    decided: threading.Event = field(default_factory=threading.Event)
    """The start has succeeded or failed: until then the record belongs to the thread that starts it."""
    failed: bool = False
    status: int | None = None
    ended: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the record is changed, after the start is decided."""

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status as a shell says it, None where nobody can know. Raises TimeoutError."""
        if not self.settled.wait(timeout):
            raise TimeoutError(f"{self.record.full_name} still runs after {timeout} s")
        return exit_code(self.status)

    def close(self) -> None:
        """Let go of the process; an adopted one that had ended already was never held."""
        if self.pidfd >= 0:
            os.close(self.pidfd)


def exit_code(status: int | None) -> int | None:
    """An exit status as a shell says it: 128 + n for signal n."""
    return status if status is None or status >= 0 else 128 - status


class Lifecycle:
    """The containers of one run dir, each on its way."""

    def __init__(
        self,
        state: State,
        plugins: Plugins,
        kernel: Kernel,
        executor: Executor,
        make_launcher: Callable[[ExitHandler], Launcher],
    ) -> None:
        """Start the spawner (or reach the one that is there) and take over what runs."""
        self.state, self.plugins, self.kernel, self.executor = state, plugins, kernel, executor
        self.live: dict[str, Live] = {}
        self._early: dict[str, tuple[int, float]] = {}
        self._registry = threading.Lock()
        self._ended: SimpleQueue[Live | None] = SimpleQueue()
        self.pump = LogPump()
        self._janitor = threading.Thread(target=self._tidy, name="pycore-janitor", daemon=True)
        self._janitor.start()
        self.launcher = make_launcher(self._on_exit)

    def close(self) -> None:
        """Let go of everything; containers run on."""
        self._ended.put(None)
        self._janitor.join(KILL_WAIT)
        self.launcher.close()
        self.pump.stop()
        for live in self.live.values():
            live.close()

    def take_over(self) -> None:
        """Bring records and processes together: what an earlier engine left half done is taken back."""
        running = {adopted.id: adopted for adopted in self.launcher.adopt()}
        for record in self.state.containers():
            adopted = running.get(record.id)
            if record.status in ("creating", "removing"):
                self._clean_up(record, adopted)
            elif adopted:
                self._adopt(record, adopted)
            elif record.attached or record.status == "running":
                self._detach(replace(record, status="stopped", pid=0))

    def _adopt(self, record: ContainerRecord, adopted: Adopted) -> Live:
        live = self._look_after(record, adopted.pidfd, adopted.outputs)
        live.decided.set()
        if adopted.pidfd < 0:
            self._over(live, adopted.status, adopted.ended)
        return live

    def _clean_up(self, record: ContainerRecord, adopted: Adopted | None) -> None:
        if adopted:
            live = self._adopt(record, adopted)
            if adopted.pidfd >= 0:
                self.launcher.kill(record.id, adopted.pidfd, signal.SIGKILL)
            live.settled.wait(KILL_WAIT)
        self.remove(record)

    # -- from nothing to running -------------------------------------------------------------------------

    def prepare(
        self, container: Container, description: Description, *, auto_remove: bool = False, log: bool = True
    ) -> ContainerRecord:
        """Do what comes before any process. On failure nothing is left."""
        record = self.state.write(
            ContainerRecord(
                id=container.id,
                app=container.app.name,
                name=container.name,
                source=source_of(container.app, container.name),
                directory=str(container.app.directory),
                created=time.time(),
                log=log,
                auto_remove=auto_remove,
                prepared=_records(description.prepare),
            )
        )
        try:
            self.executor.run(description.prepare, self._context(record, description.attach))
        except BaseException as error:
            with noted(error):
                self.remove(record)
            raise
        return self.state.write(replace(record, status="created"))

    def start(
        self, record: ContainerRecord, container: Container, description: Description, stdio: Stdio | None = None
    ) -> Live:
        """Clone, attach, exec. On failure what was attached is undone and the container is as before."""
        self.state.clear_exit(record.id)
        left = record.attached  # what could not be undone after the last run; doing is idempotent, undoing too
        attached = (*left, *(entry for entry in _records(description.attach) if entry not in left))
        record = self.state.write(replace(record, attached=attached, exit_status=None))
        began = self.executor.clock()
        with _streams(stdio) as (streams, outputs):
            try:
                starting = self.launcher.launch(_request(container, description), streams)
            except BaseException:
                for fd in outputs:
                    os.close(fd)
                raise
        self.executor.note(container.full_name, "namespaces", lambda: f"clone as pid {starting.pid}", began)
        live = self._look_after(replace(record, status="running", pid=starting.pid), starting.pidfd, outputs)
        try:
            self._attach(live, starting, description)
            live.record = self.state.write(replace(live.record, started=time.time()))
        except BaseException as error:
            live.failed = True
            cause = starting.abandon()
            live.decided.set()
            live.settled.wait(KILL_WAIT)
            if cause and cause is not error:
                raise cause from error
            raise
        live.decided.set()
        return live

    def _attach(self, live: Live, starting: Starting, description: Description) -> None:
        ctx = self._context(live.record)
        ctx.pid = starting.pid
        maps = [operation for operation in description.attach if operation.step is Step.IDMAP]
        self.executor.run(maps, ctx)
        starting.mapped()
        self.executor.run(description.attach[len(maps) :], ctx)
        began = self.executor.clock()
        starting.go()
        self.executor.note(live.record.full_name, "exec", lambda: "enter, confine, exec", began)

    def start_again(self, record: ContainerRecord) -> None:
        """Start a container that has stopped, as it was made; one that runs is left alone. Raises StartError."""
        if self.runs(record):
            return
        record = self.current(record)
        container = self.container(record)
        host = self.host()
        description = describe(self.plugins, container, host)
        if host.problems:
            raise StartError(f"{record.full_name}: " + "; ".join(problem.message for problem in host.problems))
        self.start(record, container, description)

    # -- ends --------------------------------------------------------------------------------------------

    def _look_after(self, record: ContainerRecord, pidfd: int, outputs: Sequence[int]) -> Live:
        live = Live(record, pidfd)
        if outputs:
            live.drained = self.pump.add(log_dir(self.state.data_dir, record.id), (outputs[0], outputs[1]))
        with self._registry:
            self.live[record.id] = live
            early = self._early.pop(record.id, None)
        if early:
            self._over(live, *early)
        return live

    def _on_exit(self, identity: str, status: int, ended: float) -> None:
        """Heard on the launcher's thread: note it, and leave the work to the janitor."""
        with self._registry:
            live = self.live.get(identity)
            if live is None:
                self._early[identity] = (status, ended)
        if live:
            self._over(live, status, ended)

    def _over(self, live: Live, status: int | None, ended: float) -> None:
        live.status, live.ended = status, ended
        live.exited.set()
        self._ended.put(live)

    def _tidy(self) -> None:
        """The janitor's thread: undo what was attached to processes that have ended."""
        while (live := self._ended.get()) is not None:
            live.decided.wait()
            if live.drained:
                live.drained.wait(KILL_WAIT)
            with live.lock, contextlib.suppress(PycoreError, OSError):
                self._settle(live)
            live.settled.set()

    def _settle(self, live: Live) -> None:
        record = replace(live.record, status="stopped", pid=0, exit_status=live.status, finished=live.ended)
        try:
            live.record = self._detach(record)
        finally:  # only now: who asks meanwhile must find that there is still something to wait for
            with self._registry:
                self.live.pop(record.id, None)
            live.close()
        if record.auto_remove and not live.failed:
            self.remove(live.record)

    def _detach(self, record: ContainerRecord) -> ContainerRecord:
        """Undo what was attached to a process that has ended, and write that it has."""
        failures = self.executor.undo(record.operations("attached"), self._context(record))
        # What could not be undone stays in the journal, for the removal to try again.
        return self.state.write(replace(record, attached=record.attached if failures else ()))

    def runs(self, record: ContainerRecord) -> bool:
        """Whether a container runs; one that has just ended is put in order before the answer."""
        live = self.live.get(record.id)
        if live and live.exited.is_set():
            live.settled.wait(KILL_WAIT)
            return False
        return live is not None

    def stop(self, records: Sequence[ContainerRecord], seconds: float | None = None) -> None:
        """Ask all to end, wait for each as long as it may take (or ``seconds``), then kill."""
        waiting: list[tuple[Live, float]] = []
        for record in records:
            live = self.live.get(record.id)
            if live is None:
                continue
            process = self.container(live.record)[Process]
            grace = parse_duration(process.stop_grace_period) if seconds is None else seconds
            self.launcher.kill(record.id, live.pidfd, signal_number(process.stop_signal))
            waiting.append((live, time.monotonic() + grace))
        for live, deadline in waiting:
            if not live.exited.wait(max(0.0, deadline - time.monotonic())):
                self.launcher.kill(live.record.id, live.pidfd, signal.SIGKILL)
            if not live.settled.wait(KILL_WAIT):
                raise PycoreError(
                    f"{live.record.full_name} does not end, not even by SIGKILL",
                    hint=f"its process hangs in the kernel: see /proc/{live.record.pid}/stack",
                )

    def remove(self, record: ContainerRecord) -> None:
        """Take back all that was done for a container, and forget it. Raises PycoreError for what stays."""
        self.stop([record])
        record = self.state.write(replace(self.current(record), status="removing"))
        ctx = self._context(record)
        failures = self.executor.undo(record.operations("attached"), ctx)
        failures += self.executor.undo(record.operations("prepared"), ctx)
        if failures:
            raise PycoreError(f"{record.full_name}: {'; '.join(failures)}", hint="mend it, then repeat the command")
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.state.data_dir / "containers" / record.id)
        self.state.forget(record.id)

    # -- changes -----------------------------------------------------------------------------------------

    def change(self, actions: Sequence[Action]) -> Callable[[], None]:
        """Bring the host side of containers to their changed specs: undo all that went, then do all that came.

        In this order over all of them, so that what one lets go of (a port) another can have. For a running
        container it is a live change. Returns the way back; on failure it has been gone.
        """
        swaps = [self._swap(action) for action in actions]
        put_back = partial(self._exchange, [swap.reversed() for swap in swaps])
        try:
            self._exchange(swaps)
        except BaseException as error:
            with noted(error):
                put_back()
            raise
        return put_back

    def _swap(self, action: Action) -> _Swap:
        assert action.new
        assert action.old
        record = self.current(action.old)
        running = self.runs(record)
        after = action.description
        was = _Journal(record.source, record.prepared, record.attached)
        wanted = _Journal(
            source_of(action.new.app, action.new.name),
            _records(after.prepare),
            _records(after.attach) if running else (),
        )
        before = [*record.operations("prepared"), *(record.operations("attached") if running else [])]
        gone, came = difference(before, [*after.prepare, *(after.attach if running else ())])
        ctx = self._context(record, after.attach)
        ctx.pid = record.pid if running else 0
        return _Swap(record, ctx, gone, came, was, wanted)

    def _exchange(self, swaps: Sequence[_Swap]) -> None:
        for swap in swaps:
            self._write(swap.record, swap.wanted, (*_records(swap.gone), *_records(swap.came)))
            failures = self.executor.undo(swap.gone, swap.ctx)
            if failures:
                raise PycoreError(f"{swap.record.full_name}: {'; '.join(failures)}")
        for swap in swaps:
            self.executor.run(swap.came, swap.ctx)
            self._write(swap.record, swap.wanted)

    def _write(self, record: ContainerRecord, journal: _Journal, more: tuple[Record, ...] = ()) -> None:
        """Write a record with another journal, where its process may end at this moment."""
        prepared = (*(entry for entry in more if entry not in journal.prepared), *journal.prepared)
        live = self.live.get(record.id)
        with live.lock if live else contextlib.nullcontext():
            current = replace(self.current(record), source=journal.source, prepared=prepared, attached=journal.attached)
            if live and not live.exited.is_set():
                live.record = current
            self.state.write(current)

    # -- small things ------------------------------------------------------------------------------------

    def host(self) -> Host:
        """The host, for hooks to look at."""
        return Host(self.kernel, self.state.run_dir, self.state.data_dir)

    def container(self, record: ContainerRecord) -> Container:
        """The container as it was made."""
        return container_of(record, self.plugins)

    def current(self, record: ContainerRecord) -> ContainerRecord:
        """The record as it is now."""
        return self.state.container(record.id) or record

    def _context(self, record: ContainerRecord, attach: Sequence[Operation] = ()) -> Context:
        """``attach`` are the operations that map the ids of a user namespace, for those that own files for it."""
        return Context(self.kernel, container=record.full_name, root_id=root_id(attach))


@dataclass(frozen=True)
class _Journal:
    """The part of a record that a change changes."""

    source: Mapping[str, Any]
    prepared: tuple[Record, ...]
    attached: tuple[Record, ...]


@dataclass(frozen=True)
class _Swap:
    """A change of one container: operations against others, one journal against another."""

    record: ContainerRecord
    ctx: Context
    gone: tuple[Operation, ...]
    came: tuple[Operation, ...]
    was: _Journal
    wanted: _Journal

    def reversed(self) -> _Swap:
        """The way back."""
        return _Swap(self.record, self.ctx, self.came, self.gone, self.wanted, self.was)


def _records(operations: Sequence[Operation]) -> tuple[Record, ...]:
    return tuple(to_record(operation) for operation in operations)


def _request(container: Container, description: Description) -> Request:
    process = container[Process]
    return Request(
        id=container.id,
        name=container.full_name,
        operations=description.process,
        argv=process.command,
        environment=process.environment,
        working_dir=process.working_dir,
    )


@contextlib.contextmanager
def _streams(stdio: Stdio | None) -> Generator[tuple[Stdio, tuple[int, ...]], None, None]:
    """The program's streams: those given, or nothing to read and a pipe for each kind of output.

    Yields also the read ends; they are the caller's, the rest is closed here.
    """
    if stdio is not None:
        yield stdio, ()
        return
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    try:
        yield Stdio(null, out_write, err_write, (out_read, err_read)), (out_read, err_read)
    finally:
        for fd in (null, out_write, err_write):
            os.close(fd)


@contextlib.contextmanager
def noted(error: BaseException) -> Generator[None, None, None]:
    """While a failure is being cleaned up after: what fails there is said beside it, and does not replace it."""
    try:
        yield
    except PycoreError as failure:
        error.add_note(f"could not be put back: {failure.message}")
