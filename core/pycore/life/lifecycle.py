"""One container's life: prepared, created, started, paused, stopped, removed. What the engine does to each of many.

A container's record is written before its operations run, so that at any moment the record names all that
may have to be taken back. Ends are heard of on the launcher's thread and put in order by one of our own, the
janitor; it also asks whether the container is to be started again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import NoReturn

from pycore.errors import Conflict, NotFound, PycoreError, StartError, noted
from pycore.hookspecs import End, Host
from pycore.launch.idmap import ids, root_id
from pycore.launch.launcher import ExitHandler, Launcher, Starting, Stdio, give_up, start_time
from pycore.launch.namespaces import clone_flags, network_of
from pycore.launch.request import Request
from pycore.life.execute import Executor
from pycore.life.execution import Executions, InsideOf
from pycore.life.health import HealthWatch, Result, Word
from pycore.life.live import Live
from pycore.life.oom import OomWatch
from pycore.life.patience import happens
from pycore.life.pipes import OUTPUTS, STDIN, TERMINAL, streams
from pycore.life.services import Services
from pycore.life.watch import Later, Watch
from pycore.linux import libc
from pycore.linux.kernel import Kernel
from pycore.logs import STDOUT, LogSink
from pycore.logs.pump import LogPump
from pycore.ops import Context, Operation, to_records
from pycore.plan import Description, container_of, describe, source_of
from pycore.plugins import Plugins
from pycore.records.events import Events
from pycore.records.state import ContainerRecord, Part, State
from pycore.spec import Container, Process, parse_duration, signal_number
from pycore.steps import Phase, Step

KILL_WAIT = 10.0
"""Seconds after SIGKILL in which one process at least of those that were killed has to be gone; else they hang in the
kernel. Of hundreds that end together each waits for the others: their mounts go one after the other."""

ORDER_WAIT = 60.0
"""Seconds that it may take to undo what was attached to one process that has ended; longer means that it hangs."""


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
        """Start the spawner, or reach the one that is there."""
        self.state, self.plugins, self.kernel, self.executor = state, plugins, kernel, executor
        self.live: dict[str, Live] = {}
        self.changed = threading.Condition()
        """Notified whenever something has become of a container."""
        self.watch = Watch()
        self.events = Events(state.run_dir)
        self.pump = LogPump(self._log_lost)
        self.oom = OomWatch(self._out_of_memory)
        self._early: dict[str, tuple[int | None, float]] = {}
        self._registry = threading.Lock()
        self._turns: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._restarts: dict[str, Later] = {}
        self._ended: SimpleQueue[Live | None] = SimpleQueue()
        self._put_in_order = 0
        """How many ends the janitor has been through."""
        self.executions = Executions(lambda: self.launcher, plugins, self.host)
        self._janitor = threading.Thread(target=self._tidy, name="pycore-janitor", daemon=True)
        self._janitor.start()
        self.launcher = make_launcher(self._on_exit)
        self.services = Services(plugins.services(self.host(), kernel))
        self.executor.on_change = self.services.changed

    def close(self) -> None:
        """Let go of everything; containers run on."""
        self.watch.close()
        self._ended.put(None)
        self._janitor.join(KILL_WAIT)
        self.services.close()
        self.launcher.close()
        self.oom.close()
        self.pump.stop()
        self.events.close()
        for live in self.live.values():
            live.close()

    def busy(self) -> bool:
        """Whether there is something to look after: a container that runs, or one that is to be started again."""
        return self.looked_after() > 0

    def looked_after(self) -> int:
        """How many containers run, or wait to be started again."""
        return len(self.live) + len(self._restarts)

    def _log_lost(self, identity: str, reason: str) -> None:
        live = self.live.get(identity)
        self.events.emit("log-lost", live.record if live else None, reason=reason)

    def _out_of_memory(self, identity: str) -> None:
        live = self.live.get(identity)
        if live:
            self.events.emit("oom", live.record)

    def turn(self, identity: str) -> threading.RLock:
        """Held by whoever starts, stops or removes a container: one at a time."""
        return self._turns[identity]

    @contextlib.contextmanager
    def turn_at_rest(self, record: ContainerRecord) -> Generator[None, None, None]:
        """The turn of a container that does not end just now: an end is put in order before, for which the turn may be
        wanted, to remove the container. Raises NotFound where it is removed, PycoreError where that hangs.
        """
        while True:
            live = self.live.get(record.id)
            if live and live.exited.is_set():
                self.see_settled(live)
            with self.turn(record.id):
                live = self.live.get(record.id)
                if live is None or not live.exited.is_set():
                    if self.state.container(record.id) is None:
                        raise NotFound(f"{record.full_name} has just been removed")
                    yield
                    return

    def tell(self) -> None:
        """Something has become of a container: wake whoever waits for it."""
        with self.changed:
            self.changed.notify_all()

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
                service=container.service,
                source=source_of(container.app, container.name),
                directory=str(container.app.directory),
                image=container.image.to_json(),
                created=time.time(),
                log=log,
                auto_remove=auto_remove,
                prepared=to_records(description.prepare),
            )
        )
        try:
            self.executor.run(description.prepare, self.context(record, description.attach))
        except BaseException as error:
            with noted(error):
                self.remove(record)
            raise
        self.events.emit("create", record)
        return self.state.write(replace(record, status="created"))

    def start(
        self,
        record: ContainerRecord,
        container: Container,
        description: Description,
        stdio: Stdio | None = None,
        *,
        hold: bool = False,
        restart: bool = False,
        window: tuple[int, int] = (0, 0),
    ) -> Live:
        """Clone, attach, exec; with ``hold`` all but the last. On failure what was attached is undone and the
        container is as before.

        ``restart`` says that its policy starts it, not a person; ``window`` are rows and columns of its terminal.
        """
        with self.turn(record.id):
            request = _request(container, description, window)
            live, starting = self._clone(record, container, description, request, stdio, hold, restart)
            try:
                self._attach(live, starting, description)
                if hold or request.terminal:
                    self._take_terminal(live, starting.entered())
                if hold:
                    live.starting = starting
                    live.record = self.state.write(replace(live.record, status="created"))
                else:
                    self._go(live, starting)
            except BaseException as error:
                self._give_up(live, starting, error)
            live.decided.set()
            return live

    def _clone(
        self,
        record: ContainerRecord,
        container: Container,
        description: Description,
        request: Request,
        stdio: Stdio | None,
        hold: bool,
        restart: bool,
    ) -> tuple[Live, Starting]:
        self._cancel_restart(record.id)
        self.state.clear_exit(record.id)
        left = record.attached  # what could not be undone after the last run; doing is idempotent, undoing too
        attached = (*left, *(entry for entry in to_records(description.attach) if entry not in left))
        health = "starting" if self.plugins.health(container, self.host()) else ""
        shared = network_of(description.launch)
        fresh = replace(
            record, attached=attached, exit_status=None, reason="", health=health, wanted="running", network_of=shared
        )
        # A restart is still to be done until the program runs: whoever takes over from us then does it.
        counted = {"restarts": record.restarts + 1} if restart else {"restarts": 0, "delay": 0.0, "restart_at": 0.0}
        record = self.state.write(replace(fresh, **counted))
        with self._registry:  # the end of one before it, of the same id, that nobody looked after
            self._early.pop(record.id, None)
        began = self.executor.clock()
        process = container[Process]
        log = stdio is None and not process.tty
        sink = self.plugins.log(container, self.host()).open() if log else None
        try:
            with streams(stdio, process) as given, self._network(record, description) as network:
                starting = self.launcher.launch(request, given, hold=hold, network_of=network)
        except BaseException:
            if sink:
                sink.close()
            raise
        self.executor.note(container.full_name, "namespaces", lambda: f"clone as pid {starting.pid}", began)
        record = replace(record, pid=starting.pid, pid_started=start_time(starting.pid))
        return self.look_after(record, starting.pidfd, given.kept, container, sink), starting

    def _in_network_of(self, record: ContainerRecord) -> Live | None:
        """The container whose network this one shares."""
        return self._living(lambda other: other.full_name == record.network_of)

    def _left_in_network(self, record: ContainerRecord, description: Description) -> Live | None:
        """One that shares this one's network, which it would have to itself otherwise."""
        if not clone_flags(description.launch) & libc.CLONE_NEWNET:
            return None
        return self._living(lambda other: other.network_of == record.full_name)

    def _living(self, wanted: Callable[[ContainerRecord], bool]) -> Live | None:
        """The first container of which there is a process, of those that are wanted."""
        with self._registry:
            return next((live for live in self.live.values() if wanted(live.record) and not live.exited.is_set()), None)

    @contextlib.contextmanager
    def _network(self, record: ContainerRecord, description: Description) -> Generator[int, None, None]:
        """A pidfd of a process whose network namespace a container is to be in; -1 where it gets a new one.

        It is that of the container whose network it shares. And where others share its own, and have kept the
        namespace while it was not there, it comes back to them. Raises StartError.
        """
        live = self._in_network_of(record) if record.network_of else self._left_in_network(record, description)
        pidfd = live.process() if live else -1
        if record.network_of and pidfd < 0:
            message = f"{record.full_name}: {record.network_of}, whose network it shares, does not run"
            raise StartError(message, step="namespaces")
        try:
            yield pidfd
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _take_terminal(self, live: Live, master: int) -> None:
        """Look after a terminal as long as it is there, also across our own end: what comes out of it is logged."""
        if master >= 0:
            live.kept = {**live.kept, TERMINAL: master}
            self.launcher.keep(live.record.id, TERMINAL, master)
            self._pump(live, {STDOUT: os.dup(master)})

    def _attach(self, live: Live, starting: Starting, description: Description) -> None:
        ctx = self.context(live.record)
        ctx.pid = starting.pid
        maps = [operation for operation in description.attach if operation.step is Step.IDMAP]
        self.executor.run(maps, ctx)
        starting.mapped()
        self.executor.run(description.attach[len(maps) :], ctx)

    def _go(self, live: Live, starting: Starting) -> None:
        began = self.executor.clock()
        starting.go()
        self.executor.note(live.record.full_name, "exec", lambda: "enter, confine, exec", began)
        with live.lock:
            if not live.settled.is_set():
                running = replace(live.record, status="running", started=time.time(), restart_at=0.0)
                live.record = self.state.write(running)
        self.events.emit("start", live.record)
        self.watch_health(live)
        self.tell()

    def _give_up(self, live: Live, starting: Starting, error: BaseException) -> NoReturn:
        """A start has failed: raise why, when all of it is undone."""
        live.failed = True

        def settle() -> None:
            live.decided.set()
            self.settled(live)

        give_up(starting, error, settle)

    def let_go(self, live: Live) -> None:
        """Start the program of a container that was created and waits. Raises StartError."""
        with self.turn(live.record.id):
            starting, live.starting = live.starting, None
            if starting is None:
                return
            live.decided.clear()
            try:
                self._go(live, starting)
            except BaseException as error:
                self._give_up(live, starting, error)
            live.decided.set()

    def start_again(self, record: ContainerRecord, *, restart: bool = False) -> None:
        """Start a container that has stopped, as it was made; one that runs is left alone. Raises StartError."""
        with self.turn_at_rest(record):
            if self.runs(record):
                live = self.live.get(record.id)
                if live:
                    self.let_go(live)
                return
            record = self.current(record)
            container = self.container(record)
            self.start(record, container, self.describe(container), restart=restart)

    def describe(self, container: Container) -> Description:
        """What is to be done for a container as it was made. Raises StartError for what stands in its way by now."""
        host = self.host()
        description = describe(self.plugins, container, host)
        if host.problems:
            raise StartError(f"{container.full_name}: " + "; ".join(problem.message for problem in host.problems))
        return description

    # -- holding still -----------------------------------------------------------------------------------

    def pause(self, record: ContainerRecord) -> None:
        """Hold a running container still. Raises Conflict, PycoreError."""
        with self.turn(record.id):
            live = self._running(record)
            operations = self.plugins.describe(Phase.PAUSE, self.container(live.record), self.host())
            if not operations:
                raise PycoreError(
                    f"{record.full_name} cannot be paused: no plugin can on this host", hint="pycore doctor"
                )
            if live.record.paused:
                raise Conflict(f"{record.full_name} is paused already")
            self._rewrite(live, paused=to_records(operations))
            try:
                self.executor.run(operations, self.context(live.record, pid=live.record.pid))
            except BaseException as error:
                with noted(error):
                    self._thaw(live)
                raise
            if live.health:
                live.health.pause()
            self.events.emit("pause", live.record)
            self.tell()

    def unpause(self, record: ContainerRecord) -> None:
        """Let a paused container go on. Raises Conflict, PycoreError."""
        with self.turn(record.id):
            live = self._running(record)
            if not live.record.paused:
                raise Conflict(f"{record.full_name} is not paused")
            self._thaw(live)
            self.events.emit("unpause", live.record)
            self.tell()

    def _thaw(self, live: Live) -> None:
        record = live.record
        failures = self._take_back(record, self.context(record, pid=record.pid), "paused")
        if failures:
            raise PycoreError(f"{record.full_name}: {'; '.join(failures)}")
        self._rewrite(live, paused=())
        if live.health:
            live.health.unpause()

    def _running(self, record: ContainerRecord) -> Live:
        live = self.live.get(record.id)
        if live is None or live.exited.is_set() or live.starting:
            raise Conflict(f"{record.full_name} is not running", hint=f"pycore start {record.full_name}")
        return live

    def _rewrite(self, live: Live, **fields: object) -> None:
        """Change fields of the record of a container whose process may end at this moment."""
        with live.lock:
            live.record = self.state.write(replace(self.current(live.record), **fields))  # type: ignore[arg-type]

    # -- ends --------------------------------------------------------------------------------------------

    def look_after(
        self,
        record: ContainerRecord,
        pidfd: int,
        kept: Mapping[str, int],
        container: Container | None = None,
        sink: LogSink | None = None,
    ) -> Live:
        """Begin to look after a process. ``sink`` is its open log, where it is open already."""
        live = Live(record, pidfd, container=container)
        outputs = {OUTPUTS[name]: fd for name, fd in kept.items() if name in OUTPUTS}
        live.kept = {name: fd for name, fd in kept.items() if name not in OUTPUTS}
        if TERMINAL in kept:
            outputs[STDOUT] = os.dup(kept[TERMINAL])
        if STDIN in kept:
            os.set_blocking(kept[STDIN], False)
        if outputs:
            self._pump(live, outputs, sink)
        with self._registry:
            self.live[record.id] = live
            early = self._early.pop(record.id, None)
        with contextlib.suppress(PycoreError):  # its plugin is gone: it runs on, and nobody says what of it
            self.oom.begin(record.id, self.plugins.oom(self.container(record), self.host()))
        if early:
            self.over(live, *early)
        return live

    def _pump(self, live: Live, outputs: Mapping[int, int], sink: LogSink | None = None) -> None:
        """Let the output go to its log, ``sink`` where that is open already."""
        if live.container is None:
            live.container = container_of(live.record, self.plugins)
        sink = sink or self.plugins.log(live.container, self.host()).open()
        live.drained = self.pump.add(live.record.id, sink, outputs)

    def _on_exit(self, identity: str, status: int | None, ended: float) -> None:
        """Heard on the launcher's thread: note it, and leave the work to the janitor."""
        if self.executions.heard(identity, status):
            return
        with self._registry:
            live = self.live.get(identity)
            if live is None:
                self._early[identity] = (status, ended)
        if live:
            self.over(live, status, ended)

    def over(self, live: Live, status: int | None, ended: float) -> None:
        live.status, live.ended = status, ended
        self.state.note_end(live.record.id, status, ended)
        live.exited.set()
        self._ended.put(live)

    def _tidy(self) -> None:
        """The janitor's thread: undo what was attached to processes that have ended."""
        while (live := self._ended.get()) is not None:
            live.decided.wait()
            if live.health:
                live.health.stop()
            if live.drained:
                live.drained.wait(KILL_WAIT)
            with live.lock:
                with contextlib.suppress(PycoreError, OSError):
                    self._settle(live)
                live.settled.set()
            self._put_in_order += 1
            self.pump.tell(live.record.id)
            self.tell()

    def _settle(self, live: Live) -> None:
        self.oom.end(live.record.id)
        record = replace(live.record, status="stopped", pid=0, exit_status=live.status, finished=live.ended)
        try:
            if not live.failed:  # else whoever starts it says why, and what follows
                record = self._to_restart(replace(record, reason=self._reason(live)), self._delay(live))
            live.record = self.detach(record)
        finally:  # only now: who asks meanwhile must find that there is still something to wait for
            with self._registry:
                self.live.pop(record.id, None)
            live.close()
        if live.failed:
            return
        self.events.emit("die", live.record, exit_status=live.status, reason=live.record.reason)
        if live.record.restart_at:
            self.schedule(live.record)
        elif record.auto_remove:
            self.remove(live.record)

    def detach(self, record: ContainerRecord) -> ContainerRecord:
        """Undo what was attached to a process that has ended, and write that it has."""
        ctx = self.context(record)
        failures = self._take_back(record, ctx, "attached", "paused")
        # What could not be undone stays in the journal, for the removal to try again.
        attached = (*record.paused, *record.attached) if failures else ()
        return self.state.write(replace(record, paused=(), attached=attached))

    def _reason(self, live: Live) -> str:
        """Why it ended, where its status does not say it all."""
        if live.unhealthy:
            return "it was unhealthy"
        if live.status is None:
            return "pycore was not there to see it end"
        if live.status == 0 or live.record.wanted == "stopped":
            return ""
        return self.plugins.ended(self.container(live.record), self.host(), live.status)

    # -- starting again ----------------------------------------------------------------------------------

    def _delay(self, live: Live) -> float | None:
        """Seconds until its policy starts it again; None where it does not."""
        record = live.record
        if record.status == "created":
            return None
        end = End(
            status=live.status,
            ran=max(0.0, live.ended - record.started),
            restarts=record.restarts,
            delay=record.delay,
            stopped=record.wanted == "stopped",
            unhealthy=live.unhealthy,
        )
        return self.plugins.restart(self.container(record), end)

    @staticmethod
    def _to_restart(record: ContainerRecord, delay: float | None) -> ContainerRecord:
        """The record of a container that has ended; ``delay`` is its policy's answer."""
        if delay is None:
            return replace(record, restart_at=0.0)
        return replace(record, delay=delay, restart_at=time.time() + delay)

    def schedule(self, record: ContainerRecord) -> None:
        wait = max(0.0, record.restart_at - time.time())
        self._restarts[record.id] = self.watch.at(wait, partial(self._restart, record.id), slow=True)

    def wait_again(self, record: ContainerRecord) -> None:
        """Let a container that was stopped while it waited for its restart wait for it as before."""
        with self.turn(record.id):
            waiting = replace(self.current(record), wanted=record.wanted, restart_at=record.restart_at)
            self.schedule(self.state.write(waiting))

    def _cancel_restart(self, identity: str) -> None:
        later = self._restarts.pop(identity, None)
        if later:
            later.cancel()

    def _restart(self, identity: str) -> None:
        """Its time has come: start it, unless somebody was faster or wants it stopped."""
        with self.turn(identity):
            record = self.state.container(identity)
            self._restarts.pop(identity, None)
            if record is None or not record.restart_at or record.wanted == "stopped" or identity in self.live:
                return
            self.events.emit("restart", record, restarts=record.restarts + 1)
            try:
                self.start_again(record, restart=True)
            except PycoreError as error:
                self._restart_failed(self.current(record), error)
        self.tell()

    def _restart_failed(self, record: ContainerRecord, error: PycoreError) -> None:
        end = End(status=125, ran=0.0, restarts=record.restarts, delay=record.delay, stopped=False)
        delay = self.plugins.restart(self.container(record), end)
        record = replace(record, reason=error.message, exit_status=125, status="stopped")
        record = self.state.write(self._to_restart(record, delay))
        self.events.emit("die", record, exit_status=125, reason=error.message)
        if record.restart_at:
            self.schedule(record)

    # -- health ------------------------------------------------------------------------------------------

    def watch_health(self, live: Live) -> None:
        """Ask a running container how it is, in the way that its spec wants it now."""
        check = self.plugins.health(self.container(live.record), self.host())
        if check is None:
            if live.health:
                live.health.stop()
                live.health = None
                self._rewrite(live, health="")
        elif live.health:
            live.health.change(check)
        else:
            if not live.record.health:
                self._rewrite(live, health="starting")
            record = live.record
            inside = InsideOf(self.executions, live, partial(self.container, record))
            heard = partial(self._health_changed, live)
            age = max(0.0, time.time() - record.started)
            live.health = HealthWatch(self.watch, check, inside, heard, word=record.health, age=age)

    def _health_changed(self, live: Live, word: Word, result: Result) -> None:
        if live.exited.is_set() or not live.health:
            return
        self._rewrite(live, health=word)
        self.events.emit("health", live.record, health=word, output=result.output)
        self.tell()
        then = live.health.health.check.on_unhealthy if word == "unhealthy" else "none"
        if then == "stop":
            self.stop([live.record])
        elif then == "restart":
            live.unhealthy = True
            self._see_ends([(live, self._ask_to_end(live, None))])

    # -- stopping ----------------------------------------------------------------------------------------

    def runs(self, record: ContainerRecord) -> bool:
        """Whether a container runs, or waits to; one that has just ended is put in order before the answer."""
        live = self.live.get(record.id)
        if live and live.exited.is_set():
            self.settled(live)
            return False
        return live is not None

    def stop(self, records: Sequence[ContainerRecord], seconds: float | None = None) -> None:
        """Ask all to end, wait for each as long as it may take (or ``seconds``), then kill. None is started again."""
        waiting: list[tuple[Live, float]] = []
        for record in records:
            with self.turn(record.id):
                live = self._want_stopped(record)
            if live:
                waiting.append((live, self._ask_to_end(live, seconds)))
        self._see_ends(waiting)

    def _want_stopped(self, record: ContainerRecord) -> Live | None:
        """Note that it shall not run; what there is to be stopped."""
        self._cancel_restart(record.id)
        live = self.live.get(record.id)
        if live:
            self._rewrite(live, wanted="stopped")
            return live
        now = self.state.container(record.id)
        if now and (now.wanted != "stopped" or now.restart_at):
            self.state.write(replace(now, wanted="stopped", restart_at=0.0))
        return None

    def _ask_to_end(self, live: Live, seconds: float | None) -> float:
        """Send the signal that asks it to end; until when it may take, on the monotonic clock."""
        process = self.container(live.record)[Process]
        grace = parse_duration(process.stop_grace_period) if seconds is None else seconds
        self.kill(live, signal.SIGKILL if live.starting else signal_number(process.stop_signal))
        if live.record.paused:
            self._thaw(live)
        return time.monotonic() + grace

    def kill(self, live: Live, number: int) -> None:
        """Send a signal to the first process; one that has ended is fine, its descriptor may be another's by then."""
        with live.lock:
            if not live.settled.is_set() and live.pidfd >= 0:
                self.launcher.kill(live.record.id, live.pidfd, number)

    def signal(self, live: Live, number: int) -> None:
        """Pass a person's signal on. One that is to end the container is an order that it stays so."""
        ends = (signal.SIGKILL, signal_number(self.container(live.record)[Process].stop_signal))
        if number in ends:
            self._rewrite(live, wanted="stopped")
        self.kill(live, number)
        if number == signal.SIGKILL and live.record.paused:
            self._thaw(live)

    def rename(self, record: ContainerRecord, new: str) -> ContainerRecord:
        """Give a container, and its app of which it is all, another name."""
        table = record.source["container"][record.name]
        source = {**record.source, "name": new, "container": {new: table}}
        live = self.live.get(record.id)
        with live.lock if live else contextlib.nullcontext():
            renamed = replace(self.current(record), app=new, name=new, service=new, source=source)
            self.state.write(renamed)
            if live:
                live.record, live.container = renamed, None
        self.events.emit("rename", renamed, before=record.full_name)
        return renamed

    def _see_ends(self, waiting: Sequence[tuple[Live, float]]) -> None:
        """Kill each whose time is over, and return when all have ended and are in order. Raises PycoreError."""
        for live, deadline in sorted(waiting, key=lambda each: each[1]):
            if not live.exited.wait(max(0.0, deadline - time.monotonic())):
                self.kill(live, signal.SIGKILL)
        all_of_them = [live for live, _ in waiting]
        for live in all_of_them:
            self._gone(live, all_of_them)
        for live in all_of_them:
            self.see_settled(live)

    @staticmethod
    def _gone(live: Live, among: Sequence[Live]) -> None:
        """Wait for the end of one of those that were killed. Raises PycoreError where there is none."""
        if not happens(live.exited, KILL_WAIT, lambda: sum(each.exited.is_set() for each in among)):
            raise PycoreError(
                f"{live.record.full_name} does not end, not even by SIGKILL",
                hint=f"its process hangs in the kernel: see /proc/{live.record.pid}/stack",
            )

    def see_settled(self, live: Live) -> None:
        """Wait until one that ends is in order. Raises PycoreError where the janitor hangs."""
        if not self.settled(live):
            raise PycoreError(
                f"{live.record.full_name} has ended, and what was done for it is still not undone",
                hint=f"that hangs in the kernel: see /proc/{os.getpid()}/task/*/stack",
            )

    def settled(self, live: Live) -> bool:
        """Wait until one that ends is in order, however many come before it; False where the janitor hangs."""
        return happens(live.settled, ORDER_WAIT, lambda: self._put_in_order)

    def remove(self, record: ContainerRecord) -> None:
        """Take back all that was done for a container, and forget it. Raises PycoreError for what stays."""
        self.stop([record])
        with self.turn(record.id):
            if self.state.container(record.id) is None:
                return
            record = self.state.write(replace(self.current(record), status="removing"))
            failures = self._take_back(record, self.context(record), "prepared", "attached")
            if failures:
                raise PycoreError(f"{record.full_name}: {'; '.join(failures)}", hint="mend it, then repeat the command")
            self._remove_log(record)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.state.data_dir / "containers" / record.id)
            self.state.forget(record.id)
            self.events.emit("destroy", record)
        self._turns.pop(record.id, None)
        self.tell()

    def _take_back(self, record: ContainerRecord, ctx: Context, *parts: Part) -> list[str]:
        """Undo parts of a journal, the last part first; what failed, in words."""
        operations, gone = record.readable(*parts)
        return [*self.executor.undo(operations, ctx), *gone]

    def _remove_log(self, record: ContainerRecord) -> None:
        with contextlib.suppress(PycoreError):  # a plugin that is gone takes its log with it, as far as we know
            self.plugins.log(self.container(record), self.host()).remove()

    # -- small things ------------------------------------------------------------------------------------

    def host(self) -> Host:
        """The host, for hooks to look at."""
        return Host(self.kernel, self.state.run_dir, self.state.data_dir)

    def container(self, record: ContainerRecord) -> Container:
        """The container as it was made."""
        live = self.live.get(record.id)
        if live is None:
            return container_of(record, self.plugins)
        if live.container is None:
            live.container = container_of(live.record, self.plugins)
        return live.container

    def current(self, record: ContainerRecord) -> ContainerRecord:
        """The record as it is now."""
        return self.state.container(record.id) or record

    def context(self, record: ContainerRecord, attach: Sequence[Operation] = (), *, pid: int = 0) -> Context:
        """``attach`` are the operations that map the ids of a user namespace, for those that own files for it."""
        return Context(self.kernel, container=record.full_name, root_id=root_id(attach), pid=pid)


def _request(container: Container, description: Description, window: tuple[int, int]) -> Request:
    process = container[Process]
    return Request(
        id=container.id,
        name=container.full_name,
        operations=description.process,
        argv=process.argv,
        environment=process.environment,
        working_dir=process.working_dir,
        ids=ids(description.attach),
        terminal=process.tty,
        window=window,
    )
