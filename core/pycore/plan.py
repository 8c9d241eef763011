"""What is wanted against what runs: a list of actions, each with its reason and the operations it takes.

Nothing here can write. ``apply`` carries out the very list that ``plan`` shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, cast

from pycore.errors import Conflict, Problem, SpecError, UsageError
from pycore.hookspecs import Host
from pycore.image import Image
from pycore.ops import Operation
from pycore.plugins import Plugins
from pycore.records.state import AppRecord, ContainerRecord
from pycore.source.load import load_source, locate
from pycore.spec import App, Change, Container, Fields, Process, Sections
from pycore.steps import Phase

_DONE = {Change.RESTART: "restarted", Change.RECREATE: "made anew"}
_HEALTH = "give it one: [container.NAME.health]"


class Kind(Enum):
    """What is done to a container."""

    CREATE = "create"
    START = "start"
    UPDATE = "update"
    RESTART = "restart"
    RECREATE = "recreate"
    REMOVE = "remove"


@dataclass(frozen=True)
class Reason:
    """One thing that differs. ``old`` and ``new`` are plain values; both None where words say it all."""

    what: str
    change: Change
    old: Any = None
    new: Any = None

    def words(self) -> str:
        """``network.ports: ["8080:80"] -> ["8081:80"]``."""
        if self.old is None and self.new is None:
            return self.what
        return f"{self.what}: {_toml(self.old)} -> {_toml(self.new)}"


@dataclass(frozen=True)
class Description:
    """All operations of a container's life, by phase; but those of a pause."""

    prepare: tuple[Operation, ...] = ()
    launch: tuple[Operation, ...] = ()
    attach: tuple[Operation, ...] = ()
    enter: tuple[Operation, ...] = ()
    confine: tuple[Operation, ...] = ()

    @property
    def process(self) -> tuple[Operation, ...]:
        """Those that the spawner is sent."""
        return self.launch + self.enter + self.confine

    @property
    def run(self) -> tuple[Operation, ...]:
        """Those of one start, in order."""
        return self.launch + self.attach + self.enter + self.confine


@dataclass(frozen=True)
class Action:
    """What is done to one container, and why."""

    kind: Kind
    container: str
    reasons: tuple[Reason, ...]
    old: ContainerRecord | None = None
    new: Container | None = None
    description: Description = Description()
    undo: tuple[Operation, ...] = ()
    """Operations taken back, in the order of taking back."""
    do: tuple[Operation, ...] = ()
    """Operations done, in order."""


@dataclass(frozen=True)
class Plan:
    """The actions that bring an app into the wanted state, in order."""

    app: App
    actions: tuple[Action, ...]
    generations: Mapping[str, int] = field(default_factory=dict[str, int])
    unchanged: tuple[str, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict[str, str])
    """Container name to the id that it has when the plan is carried out."""
    fetch: Mapping[str, Operation] = field(default_factory=dict[str, Operation])
    """What brings images here, by their names: before anything else."""
    warnings: tuple[Problem, ...] = ()
    """What may not be as somebody wants it, of the containers that something is done to."""


def describe(plugins: Plugins, container: Container, host: Host) -> Description:
    """Ask the plugins for a container's operations, phase by phase; those of a pause are asked for when it comes."""
    phases = (phase for phase in Phase if phase is not Phase.PAUSE)
    return Description(**{phase.value: plugins.describe(phase, container, host) for phase in phases})


def make_plan(
    app: App, records: Iterable[ContainerRecord], applied: AppRecord | None, plugins: Plugins, host: Host
) -> Plan:
    """Compare an app with what there is of it. Raises SpecError for what stands in its way on this host.

    ``records`` are those of all containers there are.
    """
    records = list(records)
    taken = {record.id for record in records}
    planner = _Planner(app, plugins, host, dict(applied.generations if applied else {}), taken)
    existing = {
        record.name: record
        for record in records
        if record.app == app.name and record.status not in ("creating", "removing")
    }
    for name in sorted(set(existing) - set(app.containers)):
        planner.remove(existing[name])
    for name, container in app.containers.items():
        planner.settle(container, existing.get(name))
    return planner.plan()


class _Planner:
    def __init__(
        self, app: App, plugins: Plugins, host: Host, generations: dict[str, int], taken: Collection[str]
    ) -> None:
        self.app, self.plugins, self.generations, self.taken = app, plugins, generations, taken
        self.warnings: list[Problem] = []
        self.host = replace(host, warnings=self.warnings)
        self.actions: list[Action] = []
        self.unchanged: list[str] = []
        self.ids: dict[str, str] = {}

    def plan(self) -> Plan:
        if self.host.problems:
            raise SpecError(locate(self.host.problems, self.app.text, self.app.file))
        warnings = tuple(locate(list(dict.fromkeys(self.warnings)), self.app.text, self.app.file))
        unchanged = tuple(self.unchanged)
        return Plan(self.app, tuple(self.actions), self.generations, unchanged, self.ids, warnings=warnings)

    def describe(self, container: Container) -> Description:
        """Describe, and turn problems relative to the container's table into problems of the file."""
        before, warned = len(self.host.problems), len(self.warnings)
        self.ids[container.name] = container.id
        if not container[Process].argv:
            hint = 'command = ["sh", "-c", "..."]'
            self.host.problems.append(Problem((), "no command: the image does not say what to run", hint, at_key=True))
        self.check_health(container)
        description = describe(self.plugins, container, self.host)
        for problems, first in ((self.host.problems, before), (self.warnings, warned)):
            problems[first:] = [
                replace(problem, path=("container", container.service, *problem.path)) for problem in problems[first:]
            ]
        return description

    def check_health(self, container: Container) -> None:
        """Who is waited for to be healthy must have a way to say so."""
        process = container[Process]
        if process.goal == "healthy" and not self.plugins.health(container, self.host):
            self.host.problems.append(Problem(("goal",), "it has no health check", hint=_HEALTH))
        for service, condition in process.depends_on.items():
            others = (other for other in self.app.containers.values() if other.service == service)
            other = next(others, None)
            if condition == "healthy" and other and not self.plugins.health(other, self.host):
                path = ("depends_on", service)
                self.host.problems.append(Problem(path, f"{service} has no health check", hint=_HEALTH))

    def remove(self, record: ContainerRecord) -> None:
        reason = Reason("it is not in the file any more", Change.RECREATE)
        self.actions.append(Action(Kind.REMOVE, record.full_name, (reason,), old=record, undo=undo_all(record)))

    def settle(self, container: Container, record: ContainerRecord | None) -> None:
        """Decide what one wanted container takes."""
        if record is None:
            self.create(container, (Reason("it is new", Change.RECREATE),))
            return
        source = source_of(self.app, container.name)
        same = source == record.source and container.image.digest == record.image.get("digest", "")
        reasons = () if same else self.compare(container.with_id(record.id), record)
        hardest = max((reason.change for reason in reasons), default=Change.NOTHING)
        if hardest is Change.RECREATE:
            self.create(container, reasons, record)
        elif record.status != "running" and (record.exit_status != 0 or record.wanted == "stopped"):
            self.start(container, (*reasons, Reason(_ended(record), Change.RESTART)), record)
        elif hardest is Change.RESTART:
            self.start(container, reasons, record)
        elif hardest is Change.LIVE:
            self.update(container, reasons, record)
        else:
            self.unchanged.append(record.full_name)
            self.ids[container.name] = record.id

    def create(self, container: Container, reasons: tuple[Reason, ...], old: ContainerRecord | None = None) -> None:
        generation = self.generations.get(container.name, 1)
        while identity(self.host.instance, container.full_name, generation) in self.taken:
            generation += 1
        self.generations[container.name] = generation
        new = container.with_id(identity(self.host.instance, container.full_name, generation))
        description = self.describe(new)
        kind = Kind.RECREATE if old else Kind.CREATE
        undo = undo_all(old) if old else ()
        do = description.prepare + description.run
        self.actions.append(Action(kind, new.full_name, reasons, old, new, description, undo, do))

    def start(self, container: Container, reasons: tuple[Reason, ...], old: ContainerRecord) -> None:
        new = container.with_id(old.id)
        description = self.describe(new)
        gone, came = difference(old.operations("prepared"), description.prepare)
        undo = (*reversed(old.operations("attached")), *reversed(gone))
        do = (*came, *description.run)
        kind = Kind.RESTART if old.status == "running" else Kind.START
        self.actions.append(Action(kind, new.full_name, reasons, old, new, description, undo, do))

    def update(self, container: Container, reasons: tuple[Reason, ...], old: ContainerRecord) -> None:
        """A live change is the difference of two lists: what went is undone, what came is done."""
        new = container.with_id(old.id)
        description = self.describe(new)
        running = old.status == "running"
        before = old.operations("prepared") + (old.operations("attached") if running else [])
        gone, came = difference(before, description.prepare + (description.attach if running else ()))
        undo = tuple(reversed(gone))
        self.actions.append(Action(Kind.UPDATE, new.full_name, reasons, old, new, description, undo, came))

    def compare(self, new: Container, record: ContainerRecord) -> tuple[Reason, ...]:
        """The fields that differ from what the container was made of."""
        old = container_of(record, self.plugins)
        own = tuple(_container_reasons(old, new))
        if old.image.digest != new.image.digest:
            own += (Reason("image", Change.RECREATE, old.image.digest, new.image.digest),)
        tables = tuple(_table_reasons(old.app, self.app))
        if own or not tables:
            return own + tables
        # Only tables beside the containers differ: it concerns this one if it would be made otherwise.
        scratch = replace(self.host, claims={}, problems=[], warnings=None)
        same = describe(self.plugins, old, scratch) == describe(self.plugins, new, replace(scratch, claims={}))
        return () if same else tables


def container_of(record: ContainerRecord, plugins: Plugins) -> Container:
    """A container as it was made. Raises SpecError where a plugin that its spec needs is not installed any more."""
    app = load_source(record.source, directory=Path(record.directory), plugins=plugins, alone=True)
    container = replace(app.containers[record.name], id=record.id, service=record.service or record.name)
    return container.made_of(Image.from_json(record.image)) if record.image else container


def altered(record: ContainerRecord, changes: Mapping[str, Any], plugins: Plugins) -> Container:
    """A container as it was made, but for some values, as its table has them; tables are laid over each other.

    ``{"environment": {"TZ": "UTC"}, "isolation": {"user": "1000"}}``. Raises UsageError for a value that cannot be.
    """
    containers = record.source["container"]
    table = _laid_over(containers[record.name], changes)
    source = {**record.source, "container": {**containers, record.name: table}}
    try:
        return container_of(replace(record, source=source), plugins)
    except SpecError as error:
        problem = error.problems[0]
        where = ".".join(map(str, problem.path[2:]))
        raise UsageError(f"{where}: {problem.message}", hint=problem.hint) from None


def make_change(record: ContainerRecord, source: Mapping[str, Any], plugins: Plugins, host: Host) -> Action:
    """What brings a container, as it is, to a spec that differs in what can be changed while it runs.

    Raises SpecError for what stands in the way, Conflict where the change takes more than that.
    """
    new = container_of(replace(record, source=source), plugins)
    planner = _Planner(new.app, plugins, host, {}, ())
    reasons = planner.compare(new, record)
    hard = next((reason for reason in reasons if reason.change not in (Change.LIVE, Change.NOTHING)), None)
    if hard:
        raise Conflict(f"{record.full_name} would have to be {_DONE[hard.change]} for this: {hard.words()}")
    planner.update(new, reasons, record)
    (action,) = planner.plan().actions
    return action


def _laid_over(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: cast("Mapping[str, Any]", new) for key, new in changes.items() if isinstance(new, Mapping)}
    laid = {key: _laid_over(table.get(key, {}), new) for key, new in inner.items()}
    return {**table, **changes, **laid}


def source_of(app: App, name: str) -> Mapping[str, Any]:
    """The app's source with one container alone: what a container's record keeps."""
    table: Mapping[str, Any] = app.source["container"][app.containers[name].service]
    if "replicas" in table:
        table = {key: value for key, value in table.items() if key != "replicas"}
    return {**app.source, "name": app.name, "container": {name: table}}


def identity(instance: str, full_name: str, generation: int) -> str:
    """A container's id: not random, so that ``plan`` and the ``apply`` after it speak of the same one."""
    return hashlib.sha256(f"{instance}\0{full_name}\0{generation}".encode()).hexdigest()[:12]


def applied_identity(applied: AppRecord, name: str, instance: str) -> str:
    """The id of the container that an app has under a name since it was last applied."""
    known = applied.ids.get(name)
    return known or identity(instance, f"{applied.name}/{name}", applied.generations.get(name, 1))


def undo_all(record: ContainerRecord) -> tuple[Operation, ...]:
    """All that removing a container takes back, in order."""
    return (*reversed(record.operations("attached")), *reversed(record.operations("prepared")))


def difference(
    before: Iterable[Operation], after: Iterable[Operation]
) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
    """A change as two lists: the operations that went, to be undone last first, and those that came."""
    old, new = tuple(before), tuple(after)
    kept = set(old) & set(new)
    return (
        tuple(operation for operation in old if operation not in kept),
        tuple(operation for operation in new if operation not in kept),
    )


def _container_reasons(old: Container, new: Container) -> Iterator[Reason]:
    for area in sorted({*old.drivers, *new.drivers}):
        before, after = old.drivers.get(area), new.drivers.get(area)
        if before != after:
            yield Reason(f"{area}.driver", Change.RECREATE, before, after)
    yield from _section_reasons(old.sections, new.sections, "")


def _table_reasons(old: App, new: App) -> Iterator[Reason]:
    for table in sorted({*old.tables, *new.tables}):
        before, after = old.tables.get(table, {}), new.tables.get(table, {})
        for name in sorted({*before, *after}):
            if name in before and name in after:
                one, other = (app.table_drivers.get(table, {}).get(name) for app in (old, new))
                if one != other:
                    yield Reason(f"{table}.{name}.driver", Change.RECREATE, one, other)
                yield from _section_reasons(before[name], after[name], f"{table}.{name}.")
            else:
                kinds = (*before.get(name, ()), *after.get(name, ()))
                change = max((kind.whole for kind in kinds), default=Change.RECREATE)
                yield Reason(f"[{table}.{name}] {'came' if name in after else 'went'}", change)


def _section_reasons(old: Sections, new: Sections, prefix: str) -> Iterator[Reason]:
    """Fields that differ, of the sections that both sides have."""
    for kind in sorted({*old, *new}, key=lambda kind: (kind.table, kind.__qualname__)):
        before, after = old.get(kind), new.get(kind)
        if before is None or after is None:
            continue  # it came or went with its driver, which is a reason of its own
        place = prefix or (f"{kind.table.split('.')[2]}." if kind.table.count(".") == 2 else "")
        for name in kind.model_fields:
            one, other = getattr(before, name), getattr(after, name)
            if one != other:
                yield Reason(f"{place}{name}", kind.change_of(name), one, other)


def _ended(record: ContainerRecord) -> str:
    if record.wanted == "stopped":
        return "it was stopped"
    if record.exit_status is None:
        return "it is not running"
    if record.exit_status < 0:
        return f"it was ended by signal {-record.exit_status}"
    return f"it ended with status {record.exit_status}"


def _toml(value: Any) -> str:
    """A value as one would write it in the file."""
    import json

    def plain(inner: Any) -> Any:
        return inner.model_dump(exclude_defaults=True) if isinstance(inner, Fields) else str(inner)

    return json.dumps(value, ensure_ascii=False, default=plain)
