"""One apply, one stop, one down: load, plan, carry out, put back. Also the runtime as a library.

    with pycore.Engine(run_dir=..., data_dir=...) as engine:
        engine.apply(engine.load("app.toml"))

An engine that changes things holds the run dir's lock: there is one at a time. The supervisor is such an
engine with a socket; a test or a notebook may be one too.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pycore import places
from pycore.convergence.applying import FETCHED, Apply, Back, Cancel, Progress, quiet, stop_order
from pycore.convergence.changes import change, finish
from pycore.convergence.comeback import come_back
from pycore.convergence.takeover import take_over
from pycore.errors import Conflict, NotFound, PycoreError, UsageError, noted
from pycore.hookspecs import DiskUse, Host, Snapshot
from pycore.launch.launcher import ExitHandler, Launcher, SpawnerLauncher, Stdio
from pycore.life.attachment import Attachment
from pycore.life.execute import Executor, Timing
from pycore.life.execution import Execution
from pycore.life.lifecycle import Lifecycle
from pycore.life.live import Live, exit_code
from pycore.life.pipes import STDIN
from pycore.linux.kernel import Kernel
from pycore.logs import EVERYTHING, STDOUT, Chunk, Log, NoLog, Query
from pycore.logs.following import NOBODY, Asking, Source, chunks, lines
from pycore.logs.lines import Line
from pycore.logs.pump import LogPump
from pycore.looking.disk import used
from pycore.looking.stats import Sample, take
from pycore.looking.told import Told
from pycore.looking.top import Process, processes
from pycore.ops import Context, Operation
from pycore.order import at_once
from pycore.plan import Action, Kind, Plan, altered, container_of, make_change, make_plan
from pycore.plugins import Plugins, load_plugins
from pycore.records.events import Event, EventQuery
from pycore.records.state import AppRecord, ContainerRecord, State
from pycore.resolve import resolve
from pycore.source.load import load_file, load_text
from pycore.spec import NAME_PATTERN, App, Container

Call = Callable[[str, Sequence[str], Stdio], Execution]
"""Calls ``MODULE:FUNCTION`` with words and streams."""


def _nothing() -> None:
    """A check that finds nothing."""


def _trying(failures: list[PycoreError], act: Callable[[], None]) -> None:
    """Note a failure, so that it keeps nothing else from being done."""
    try:
        act()
    except PycoreError as error:
        failures.append(error)


def _renamed(app: AppRecord, record: ContainerRecord) -> AppRecord:
    """What was applied of an app whose one container has another name by now."""
    name = record.name
    (generation,) = app.generations.values() or (1,)
    stopped = (name,) if app.stopped else ()
    ids, images = {name: record.id}, {name: record.image}
    return replace(
        app, name=name, source=record.source, generations={name: generation}, ids=ids, images=images, stopped=stopped
    )


_OWN = ("name", "container")
"""What of a spec are no named tables beside the containers."""

STARTS = 4
"""Containers that one apply works on at once: more than two processors' worth, since much of it is waiting."""


class Engine:
    """The runtime, in process."""

    def __init__(
        self,
        run_dir: str | os.PathLike[str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        plugins: Plugins | None = None,
        kernel: Kernel | None = None,
        launcher: Callable[[ExitHandler], Launcher] | None = None,
        executor: Executor | None = None,
        starts: int = STARTS,
    ) -> None:
        """Nothing is touched before the first change.

        ``kernel`` and ``launcher`` are for tests without root; ``starts`` is how many containers an apply works
        on at once.
        """
        self.starts = starts
        self.run_dir = Path(run_dir or os.environ.get("PYCORE_RUN_DIR") or places.run_dir()).absolute()
        self.data_dir = Path(data_dir or os.environ.get("PYCORE_DATA_DIR") or places.data_dir()).absolute()
        self.kernel = kernel or Kernel()
        self.plugins = plugins or load_plugins(rootless=not self.kernel.owns_network())
        self.state = State(self.run_dir, self.data_dir)
        self.executor = executor or Executor()
        self._make_launcher = launcher or partial(SpawnerLauncher, self.run_dir)
        self._told = Told(self._ask, self.state.containers)
        self._lifecycle: Lifecycle | None = None
        self._opening = threading.RLock()
        self._coming_back: threading.Thread | None = None
        self._planning = threading.Lock()
        """Held from a plan until what it chose (addresses, names) is on the host for the next plan to see."""
        self._apps: dict[str, threading.RLock] = defaultdict(threading.RLock)
        """One change of an app at a time."""

    # -- opening and closing -----------------------------------------------------------------------------

    def open(self) -> Lifecycle:
        """Become the engine of this run dir: lock it, start the spawner, take over what runs. Raises Conflict."""
        with self._opening:
            if self._lifecycle is None:
                self.state.lock()
                try:
                    self._lifecycle = Lifecycle(
                        self.state, self.plugins, self.kernel, self.executor, self._make_launcher
                    )
                    take_over(self._lifecycle)
                    self._lifecycle.services.changed()
                    self._told.ahead(self.state.containers())
                    self._come_back(self._lifecycle)
                except BaseException:
                    self.close()
                    raise
            return self._lifecycle

    def _come_back(self, life: Lifecycle) -> None:
        """After a boot of the host, start what was applied; meanwhile other commands are served."""
        apps = self.state.apps() if self.state.rebooted else []
        if not apps:
            return

        def work() -> None:
            for record in apps:
                with self._apps[record.name]:
                    come_back(life, record, self.starts)
            self._coming_back = None

        self._coming_back = threading.Thread(target=work, name="pycore-come-back", daemon=True)
        self._coming_back.start()

    def close(self) -> None:
        """Let go. Containers run on; the next engine takes over."""
        with self._opening:
            if self._lifecycle:
                self._lifecycle.close()
                self._lifecycle = None
            self.state.unlock()

    def __enter__(self) -> Engine:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading -----------------------------------------------------------------------------------------

    def host(self) -> Host:
        """The host, for hooks to look at."""
        return Host(self.kernel, self.run_dir, self.data_dir)

    def load(self, path: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> App:
        """Read a file. Raises SpecError with every problem."""
        return load_file(Path(path), self.plugins, os.environ if environment is None else environment)

    def load_text(
        self,
        text: str | bytes,
        *,
        file: str = "app.toml",
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> App:
        """Read a spec from a string. Raises SpecError with every problem."""
        return load_text(
            text,
            file=file,
            directory=directory or Path.cwd(),
            plugins=self.plugins,
            environment=os.environ if environment is None else environment,
        )

    def plan(self, app: App) -> Plan:
        """What an apply would do. Raises SpecError for what stands in its way on this host."""
        resolved = resolve(app, self.plugins, self.host())
        return replace(self._plan(resolved.app), fetch=resolved.fetch)

    def _plan(self, app: App) -> Plan:
        """The plan of an app whose images are known."""
        return make_plan(app, self.state.containers(), self.state.app(app.name), self.plugins, self.host())

    def _records(self, app: str) -> list[ContainerRecord]:
        return [record for record in self.state.containers() if record.app == app]

    def containers(self) -> list[ContainerRecord]:
        """All containers there are, by app and name."""
        return self.state.containers()

    def find(self, name: str) -> ContainerRecord:
        """The container of that id, full name or bare name. Raises NotFound, Conflict where several have it."""
        known = self.state.container(name) if self._lifecycle else None  # by its id, whatever the number of others
        if known:
            return known
        found = [record for record in self.state.containers() if name in (record.full_name, record.name, record.id)]
        if not found:
            raise NotFound(f"no such container: {name}", hint="pycore ps -a lists the ones there are")
        if len(found) > 1:
            names = ", ".join(sorted(record.full_name for record in found))
            raise Conflict(f"several containers are called {name}: {names}", hint="say which, as APP/NAME")
        return found[0]

    def inspect(self, record: ContainerRecord) -> dict[str, Any]:
        """What plugins tell of a container: addresses, ports, paths. Asked once for a record, until it changes."""
        return self._told.of(record)

    def checks(self, record: ContainerRecord) -> dict[str, Any] | None:
        """What the last health checks of a running container said; None where nobody asks."""
        live = self._lifecycle.live.get(record.id) if self._lifecycle else None
        health = live.health if live else None
        return health.to_json() if health else None

    def _ask(self, record: ContainerRecord) -> dict[str, Any]:
        return self.plugins.inspect(self._container(record), self.host())

    def _container(self, record: ContainerRecord) -> Container:
        """The container as it was made; that of one that runs is at hand."""
        return self._lifecycle.container(record) if self._lifecycle else container_of(record, self.plugins)

    def top(self, name: str) -> list[Process]:
        """The processes of a container, by id; none where it does not run. Raises NotFound."""
        record = self.find(name)
        return processes(self.kernel, record.pid) if record.pid else []

    def stats(self, names: Sequence[str] = ()) -> list[Sample]:
        """What containers use at this moment; all that run, where none is named. Raises NotFound."""
        records = [self.find(name) for name in names] if names else self.containers()
        return take(records, self._container, self.plugins, self.host())

    def snapshot(self, record: ContainerRecord) -> tuple[Container, Snapshot]:
        """A container, and its files. Raises PycoreError where its storage driver does not speak of them."""
        container = self._container(record)
        return container, self.plugins.snapshot(container, self.host())

    def disk(self) -> list[DiskUse]:
        """What is kept in the data dir takes on the disk. May have to look at each file of containers and volumes."""
        return used(self.containers(), self._container, self.plugins, self.host())

    def logs(
        self,
        name: str,
        query: Query = EVERYTHING,
        *,
        follow: bool = False,
        hangups: Collection[int] = (),
        interrupts: Mapping[int, Callable[[], bool]] = NOBODY,
    ) -> Iterator[Chunk]:
        """A container's output as it came; with ``follow`` also what comes, until it has ended.

        Nobody cares any more when one of ``hangups``, descriptors of who asks, hangs up; or when there is something to
        be read from one of ``interrupts`` that, as the function beside it says, means so. Raises NotFound, and
        PycoreError where nothing is kept.
        """
        sources = self._log_sources([self.find(name)])
        portions = chunks(sources, Asking(query, self._pump(follow), hangups, interrupts))
        return (chunk for portion in portions for _, chunk in portion)

    def lines(
        self,
        names: Sequence[str],
        query: Query = EVERYTHING,
        *,
        follow: bool = False,
        hangups: Collection[int] = (),
        interrupts: Mapping[int, Callable[[], bool]] = NOBODY,
    ) -> Iterator[list[tuple[str, Line]]]:
        """The output of several containers, or apps, line by line in the order of time, with their full names.

        In portions: a list holds what there is to be had at once, but no more than some 64 KiB.
        """
        found = [record for name in names for record in self.find_all(name)]
        return lines(self._log_sources(found), Asking(query, self._pump(follow), hangups, interrupts))

    def find_all(self, name: str) -> list[ContainerRecord]:
        """All containers of an app or a service, or the one of that name. Raises NotFound, Conflict."""
        records = self.state.containers()
        whole = [record for record in records if name in (record.app, f"{record.app}/{record.service}")]
        alike = [record for record in records if name == record.name and record not in whole]
        if whole and alike:
            raise Conflict(
                f"{name} is an app, and {alike[0].full_name} is called so too", hint="say which, as APP/NAME"
            )
        return whole or [self.find(name)]

    def _log_sources(self, records: Iterable[ContainerRecord]) -> dict[str, Source]:
        return {record.full_name: self._log_source(record) for record in records}

    def _log_source(self, record: ContainerRecord) -> Source:
        def over() -> bool:
            live = self._lifecycle.live.get(record.id) if self._lifecycle else None
            if live:
                return live.drained is None
            now = self.state.container(record.id)
            return now is None or not now.restart_at

        if not record.log:
            log: Log = NoLog(f"that of {record.full_name} went to the terminal that ran it")
        else:
            log = self.plugins.log(container_of(record, self.plugins), self.host())
        return Source(record.id, log, over)

    def lost_output(self, record: ContainerRecord) -> int:
        """Bytes of a container's output that could not be kept, as far as its log does not say so itself."""
        return self._lifecycle.pump.lost(record.id) if self._lifecycle else 0

    def _pump(self, follow: bool) -> LogPump | None:
        return self._lifecycle.pump if follow and self._lifecycle else None

    @contextlib.contextmanager
    def undisturbed(self) -> Generator[None, None, None]:
        """For the length of a with block no container is made."""
        with self._planning:
            yield

    def busy(self) -> bool:
        """Whether there is something to look after."""
        return bool(self._coming_back or (self._lifecycle and self._lifecycle.busy()))

    def tidy(self) -> None:
        """Let plugins remove what is of no use any more, beside whatever else is done."""
        try:
            self.plugins.idle(self.host())
        except (PycoreError, OSError):
            traceback.print_exc()  # for whoever reads the log of the supervisor; who gives a command is told by itself

    def looked_after(self) -> int:
        """How many containers run, or wait to be started again."""
        return self._lifecycle.looked_after() if self._lifecycle else 0

    # -- apps --------------------------------------------------------------------------------------------

    def apply(
        self,
        app: App,
        *,
        progress: Progress = quiet,
        timings: list[Timing] | None = None,
        cancel: Cancel | None = None,
        planned: Callable[[Plan], None] = lambda plan: None,
    ) -> Plan:
        """Bring an app into the wanted state; if a part fails, what was there before is put back.

        ``planned`` is called with what is done, before anything that runs is touched. Raises SpecError before anything
        is touched, PycoreError after all has been put back.
        """
        life = self.open()
        with self._apps[app.name], self._watching(app.name, timings):
            back: Back = []
            try:
                made = self._with_images(app, progress, cancel.check if cancel else _nothing)
                plan = self._prepare_all(life, made, back, progress)
                planned(plan)
                Apply(life, plan, back, self.starts, progress, cancel).carry_out()
                if plan.actions or self.state.app(app.name) is None:
                    self._write_app(plan)
            except BaseException as error:
                for step in reversed(back):
                    with noted(error):
                        step()
                raise
            if plan.actions:
                life.events.emit("apply", app=app.name)
            old = [action.old for action in plan.actions if action.old and action.kind in (Kind.REMOVE, Kind.RECREATE)]
            at_once([partial(life.remove, record) for record in old], self.starts)
            if plan.actions:
                self._told.ahead(self._records(app.name))
            self.plugins.applied(plan.app, self.host())
            return plan

    def fetch(self, app: App, progress: Progress = quiet, check: Callable[[], None] = _nothing) -> None:
        """Bring here what is missing of an app's images. ``check`` raises where nobody waits for it any more."""
        self.open()
        self._with_images(app, progress, check)

    def cancel(self) -> Cancel:
        """A way to give up waiting for an apply."""
        return Cancel(self.open().changed)

    def _with_images(self, app: App, progress: Progress = quiet, check: Callable[[], None] = _nothing) -> App:
        """The app with its images, which are here then."""
        resolved = resolve(app, self.plugins, self.host())

        def fetch(name: str, operation: Operation) -> None:
            def tell(words: str) -> None:
                check()
                progress(name, words)

            tell("fetching")
            ctx = Context(self.kernel, container=app.name, tell=tell, client=app.environment)
            try:
                self.executor.run([operation], ctx)
            except PycoreError as error:
                error.add_note(f"it was wanted for image {name}")
                raise
            progress(name, FETCHED)

        at_once([partial(fetch, name, operation) for name, operation in resolved.fetch.items()], self.starts)
        return resolved.app

    @contextlib.contextmanager
    def _watching(self, app: str, timings: list[Timing] | None) -> Generator[None, None, None]:
        if timings is not None:
            self.executor.watched[app] = timings
        try:
            yield
        finally:
            self.executor.watched.pop(app, None)

    def _prepare_all(self, life: Lifecycle, app: App, back: Back, progress: Progress) -> Plan:
        """Plan, and prepare what is new, before anything that runs is touched."""
        for record in self._records(app.name):
            if record.status == "removing":  # an earlier removal did not come to its end
                life.remove(record)
        finish(life, [record for record in self._records(app.name) if record.going or record.coming])
        with self._planning:
            plan = self._plan(app)
            fresh = [action for action in plan.actions if action.kind in (Kind.CREATE, Kind.RECREATE)]
            for action in plan.actions:
                progress(action.container, "pending")
            at_once([partial(self._prepare, life, action, back, progress) for action in fresh], self.starts)
        return plan

    @staticmethod
    def _prepare(life: Lifecycle, action: Action, back: Back, progress: Progress) -> None:
        assert action.new
        progress(action.container, "preparing")
        back.append(partial(life.remove, life.prepare(action.new, action.description)))

    def _write_app(self, plan: Plan) -> None:
        app = plan.app
        current = set(plan.ids.values())
        made = {record.name: record.image for record in self._records(app.name) if record.id in current}
        record = AppRecord(app.name, app.source, str(app.directory), app.file, plan.generations, plan.ids, made)
        self.state.write_app(record)

    def down(self, name: str, seconds: float | None = None) -> list[str]:
        """Stop and remove all containers of an app; volumes stay. Returns their names. Raises NotFound.

        Each has the time to end that its spec gives it, or ``seconds``, before it is killed.
        """
        life = self.open()
        with self._apps[name]:
            records = self._records(name)
            if not records and self.state.app(name) is None:
                raise NotFound(f"no such app: {name}", hint="pycore ps -a lists what there is")
            for layer in stop_order(records):
                life.stop(layer, seconds)
            failures: list[PycoreError] = []
            at_once([partial(_trying, failures, partial(life.remove, each)) for each in records[::-1]], self.starts)
            for failure in failures[:1]:
                for other in failures[1:]:
                    failure.add_note(other.message)
                raise failure
            self.state.forget_app(name)
            life.events.emit("down", app=name)
            return [record.full_name for record in records]

    def run(
        self,
        app: App,
        *,
        stdio: Stdio | None = None,
        auto_remove: bool = False,
        hold: bool = False,
        window: tuple[int, int] = (0, 0),
        prepared: Callable[[ContainerRecord], None] = lambda record: None,
        planned: Callable[[Plan], None] = lambda plan: None,
    ) -> Live:
        """Start an app of one container that is not there yet, as ``pycore run`` does.

        ``stdio`` are the program's own streams; without them its output is kept as a log. With ``hold`` it has its
        namespaces, mounts and network, and waits for :meth:`start` before its program. ``window`` are rows and columns
        of its terminal, where it has one; ``planned`` is called with what is done, before it is; ``prepared`` before
        there is a process, for who wants to hear all of its output. What is returned can be waited for also when the
        container has been removed by then. Raises Conflict where the name is taken.
        """
        life = self.open()
        with self._apps[app.name]:
            made = self._with_images(app)
            with self._planning:
                self._refuse_taken(app.name)
                plan = self._plan(made)
                (action,) = plan.actions
                assert action.new
                planned(plan)
                record = life.prepare(action.new, action.description, auto_remove=auto_remove, log=stdio is None)
            try:
                prepared(record)
                started = life.start(record, action.new, action.description, stdio, hold=hold, window=window)
                if not auto_remove:
                    self._write_app(plan)
            except BaseException as error:
                with noted(error):
                    life.remove(record)
                raise
            return started

    def _refuse_taken(self, name: str) -> None:
        if self.state.app(name) or self._records(name):
            raise Conflict(f"the name {name} is taken", hint=f"pycore down {name}, or choose another with --name")

    # -- containers --------------------------------------------------------------------------------------

    def stop(self, name: str, seconds: float | None = None) -> ContainerRecord:
        """Ask a container to end, and kill it when its time (or ``seconds``) is over. It is not started again.

        Raises NotFound.
        """
        life = self.open()
        record = self.find(name)
        life.events.emit("stop", record)
        life.stop([record], seconds)
        self._remember(record, stopped=True)
        return life.current(record)

    def change(self, name: str, edit: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> ContainerRecord:
        """Change a container while it runs. ``edit`` makes of its spec, as a spec of that container alone, another.

        It stays so after a boot of the host, until its app is applied. Raises NotFound, SpecError for what stands in
        the way, Conflict where it takes more than a live change, PycoreError after all has been put back.
        """
        life = self.open()
        record = self.find(name)
        with self._apps[record.app], life.turn_at_rest(record):
            record = life.current(record)
            source = edit(record.source)
            with self._planning:
                action = make_change(record, source, self.plugins, self.host())
            change(life, [action])
            self._remember_source(record, source)
            return life.current(record)

    def _remember_source(self, record: ContainerRecord, source: Mapping[str, Any]) -> None:
        """Keep for the next boot of the host what a container has become; one of several replicas comes back as all."""
        app = self.state.app(record.app)
        if app is None or record.name not in app.source["container"]:
            return
        containers = {**app.source["container"], record.name: source["container"][record.name]}
        tables = {kind: {**app.source.get(kind, {}), **named} for kind, named in source.items() if kind not in _OWN}
        self.state.write_app(replace(app, source={**app.source, **tables, "container": containers}))

    def start(self, name: str) -> ContainerRecord:
        """Start a container that has stopped, or was only created; one that runs is left alone.

        Raises NotFound, StartError.
        """
        life = self.open()
        record = self.find(name)
        with self._apps[record.app]:
            life.start_again(record)
        self._remember(record, stopped=False)
        return life.current(record)

    def restart(self, name: str, seconds: float | None = None) -> ContainerRecord:
        """Stop a container and start it. Raises NotFound, StartError."""
        self.stop(name, seconds)
        return self.start(name)

    def _remember(self, record: ContainerRecord, *, stopped: bool) -> None:
        """Keep for the next boot of the host whether a person wants a container to be stopped."""
        with self._apps[record.app]:
            app = self.state.app(record.app)
            if app and (record.name in app.stopped) != stopped:
                others = [name for name in app.stopped if name != record.name]
                self.state.write_app(replace(app, stopped=(*others, record.name) if stopped else others))

    def pause(self, name: str) -> ContainerRecord:
        """Hold a running container still. Raises NotFound, Conflict."""
        life = self.open()
        record = self.find(name)
        life.pause(record)
        return life.current(record)

    def unpause(self, name: str) -> ContainerRecord:
        """Let a paused container go on. Raises NotFound, Conflict."""
        life = self.open()
        record = self.find(name)
        life.unpause(record)
        return life.current(record)

    def kill(self, name: str, number: int = signal.SIGKILL) -> ContainerRecord:
        """Send a signal to a container's first process. Raises NotFound, Conflict where it does not run.

        One that is to end by it, SIGKILL or its own stop signal, is not started again.
        """
        life = self.open()
        record = self.find(name)
        live = life.live.get(record.id)
        if live is None or live.exited.is_set():
            raise Conflict(f"{record.full_name} is not running")
        life.events.emit("kill", record, signal=number)
        life.signal(live, number)
        return record

    def wait(self, name: str, timeout: float | None = None) -> int | None:
        """A container's exit status once it has ended, 128 + n for signal n, None where nobody can know.

        Raises TimeoutError when it still runs after ``timeout`` seconds.
        """
        life = self.open()
        record = self.find(name)
        live = life.live.get(record.id)
        if live is None:
            return exit_code(life.current(record).exit_status)
        return live.wait(timeout)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a container that has stopped (``force``: or stop it), and its app when nothing else is in it.

        Raises NotFound, Conflict.
        """
        life = self.open()
        record = self.find(name)
        with self._apps[record.app]:
            if life.runs(record) and not force:
                raise Conflict(f"{record.full_name} is running", hint=f"pycore stop {record.full_name}")
            life.stop([record], 0 if force else None)
            life.remove(record)
            if not self._records(record.app):
                self.state.forget_app(record.app)

    def rename(self, name: str, new: str) -> ContainerRecord:
        """Give another name to a container that ``run`` or ``create`` made. Raises NotFound, Conflict, UsageError."""
        life = self.open()
        record = self.find(name)
        if not re.fullmatch(NAME_PATTERN, new):
            raise UsageError(f"{new!r} cannot be a name")
        with self._apps[record.app], self._apps[new]:
            app = self.state.app(record.app)
            if record.name != record.app or (app and list(app.source["container"]) != [record.name]):
                raise Conflict(f"{record.full_name} has its name from its file", hint="change the file, and apply it")
            self._refuse_taken(new)
            renamed = life.rename(record, new)
            if app:
                self.state.write_app(_renamed(app, renamed))
                self.state.forget_app(record.app)
            return renamed

    # -- what runs inside, and who is attached -------------------------------------------------------------

    def running(self, name: str) -> Live:
        """A container that runs. Raises NotFound, Conflict."""
        life = self.open()
        record = self.find(name)
        live = life.live.get(record.id)
        if live is None or live.exited.is_set() or live.starting:
            raise Conflict(f"{record.full_name} is not running", hint=f"pycore start {record.full_name}")
        return live

    def attachment(self, record: ContainerRecord) -> Attachment:
        """A container's output from now on; to be connected once it runs, and closed."""
        return Attachment(self.open().pump, record.id)

    def live(self, record: ContainerRecord) -> Live | None:
        """A container's process; None once it has ended and all of its output was heard."""
        return self.open().live.get(record.id)

    def end_input(self, attachment: Attachment) -> None:
        """Nothing more is to be written to a container's standard input: its program is told that it has ended."""
        if attachment.end_input():
            self.open().launcher.release(attachment.identity, STDIN)

    def execute(
        self,
        name: str,
        command: Sequence[str],
        stdio: Stdio,
        changes: Mapping[str, Any] | None = None,
        *,
        terminal: bool = False,
        window: tuple[int, int] = (0, 0),
    ) -> Execution:
        """Run a program in a container that runs, in all that the container's own is in, and as confined.

        ``changes`` are values that differ for it, as the container's table has them (:func:`pycore.plan.altered`). With
        ``terminal`` it has one of its own, in the place of ``stdio``. Raises NotFound, Conflict, UsageError, or
        StartError.
        """
        life = self.open()
        live = self.running(name)
        container = altered(live.record, changes, self.plugins) if changes else life.container(live.record)
        execution = life.executions.start(live, container, command, stdio, terminal=terminal, window=window)
        about = {"command": list(command), "pid": execution.pid}
        life.events.emit("exec", live.record, **about)
        execution.when_ended(lambda status: life.events.emit("exec-die", live.record, exit_status=status, **about))
        return execution

    @contextlib.contextmanager
    def files(self, name: str) -> Generator[Call, None, None]:
        """A container's files, whether it runs or not: a way to call a function of pycore where they are.

        One that has stopped cannot be started meanwhile. Raises NotFound, Conflict.
        """
        life = self.open()
        record = self.find(name)
        live = life.live.get(record.id)
        if live and not live.exited.is_set():
            yield partial(life.executions.call, live, life.container(record))
            return
        with life.turn_at_rest(record):
            record = self.find(record.id)
            if life.runs(record) or record.status in ("creating", "removing"):
                raise Conflict(f"{record.full_name} is just being changed", hint="repeat the command")
            yield partial(life.executions.call, None, life.container(record))

    def signal(self, execution: Execution, number: int) -> None:
        """Send a signal to a program of :meth:`execute`; one that has ended is fine."""
        self.open().executions.kill(execution, number)

    def abandon(self, execution: Execution) -> None:
        """Nobody listens to a program any more: let it run on, what it writes to its terminal is thrown away."""
        life = self.open()
        if execution.terminal >= 0 and not execution.exited.is_set():
            life.pump.add(execution.id, None, {STDOUT: os.dup(execution.terminal)})
        execution.close()

    def events(self, query: EventQuery, ended: Callable[[], bool] | None = None) -> Iterator[Event]:
        """What happened; with ``ended`` also what comes, until it says so."""
        events = self.open().events
        return events.read(query) if ended is None else events.follow(ended, query)
