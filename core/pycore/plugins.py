"""Finds plugins, knows the drivers and who owns which section, calls hooks with types.

All plugins come in through the entry-point group ``pycore``, ours and theirs alike. Order is by name,
never by registration. A plugin that cannot be imported is left out with a warning, unless a spec asks for
it by name: then it is an error that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

from pycore.errors import PluginError, Problem, PycoreError
from pycore.hookspecs import (
    GROUP,
    AlarmSource,
    DiskUse,
    Driver,
    End,
    Found,
    HealthCheck,
    Hooks,
    Host,
    Requirement,
    Service,
    Snapshot,
)
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import App, Container, Process, Section
from pycore.steps import Phase

if TYPE_CHECKING:
    from pycore.linux.kernel import Kernel
    from pycore.logs import Log

T = TypeVar("T")

Caller = Callable[..., list[Any]]
"""A hook of one plugin, called with names: a list of what it returns, empty for None."""

CORE = "core"
"""The name under which the core's own section is listed."""


@dataclass(frozen=True)
class Owner:
    """A section and the plugin it came from; ``driver`` is set where it counts only for that driver."""

    section: type[Section]
    plugin: str
    driver: Driver | None = None


@dataclass(eq=False)
class Plugins:
    """The installed plugins of this process. They do not change, so that what is made of them can be kept."""

    manager: pluggy.PluginManager
    drivers: dict[str, dict[str, Driver]] = field(default_factory=dict[str, dict[str, Driver]])
    """Area to name to driver."""
    owners: list[Owner] = field(default_factory=list[Owner])
    """Every section, the core's first, then by plugin name."""
    broken: dict[str, str] = field(default_factory=dict[str, str])
    """Entry points that could not be loaded, and why."""
    distributions: dict[str, str] = field(default_factory=dict[str, str])
    """Plugin name to the distribution and version it came from."""
    rootless: bool = False
    """Whether drivers are chosen for a pycore that has no power over the host's network."""
    _driver_of: dict[str, Driver] = field(default_factory=dict[str, Driver])
    _cache: dict[str, list[tuple[str, Caller]]] = field(default_factory=dict[str, "list[tuple[str, Caller]]"])

    def __post_init__(self) -> None:
        self._learn_drivers()
        self._learn_sections()
        self._check_owners()

    # -- what there is -----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the loaded plugins, sorted."""
        return sorted(name for name, _ in self.manager.list_name_plugin())

    def listing(self) -> list[dict[str, str]]:
        """Plugins for people: name, what each is or owns, the distribution it came from."""
        rows: list[dict[str, str]] = []
        for name in self.names():
            driver = self._driver_of.get(name)
            tables = sorted({f"[{owner.section.table}]" for owner in self.owners if owner.plugin == name})
            what = f"{driver.area} driver {driver.name}" if driver else ", ".join(tables)
            rows.append({"plugin": name, "what": what, "distribution": self.distributions.get(name, "")})
        return rows

    def areas(self, kind: str) -> list[str]:
        """The areas of which a driver may be chosen in tables of a kind, sorted."""
        return sorted(area for area in self.drivers if self.choices(area, kind))

    def choices(self, area: str, kind: str) -> list[str]:
        """The drivers of an area that may be chosen in tables of a kind, sorted."""
        return sorted(driver.name for driver in self.drivers.get(area, {}).values() if kind in driver.of)

    def default_driver(self, area: str, kind: str) -> str:
        """The one of them that serves where none is named."""
        choices = self.choices(area, kind)
        drivers = [self.drivers[area][name] for name in choices]
        if self.rootless and (found := next((driver.name for driver in drivers if driver.rootless), "")):
            return found
        return next((driver.name for driver in drivers if driver.default), choices[0])

    def sections_of(self, table: str, drivers: Mapping[str, str] | None = None) -> list[Owner]:
        """Who owns fields of a table; with ``drivers``, only sections that count for this choice."""
        return [
            owner
            for owner in self.owners
            if owner.section.table == table
            and (drivers is None or owner.driver is None or drivers.get(owner.driver.area) == owner.driver.name)
        ]

    def tables(self) -> list[str]:
        """All tables that have an owner, sorted."""
        return sorted({owner.section.table for owner in self.owners})

    # -- calling hooks, each with its types --------------------------------------------------------------

    def commands(self) -> list[Callable[[Any, Any], None]]:
        """Families of verbs of the command line."""
        found: list[Callable[[Any, Any], None]] = []
        for name, caller in self._callers("pycore_commands"):
            for families in self._guard(name, "pycore_commands", "the command line", caller):
                found += families
        return found

    def requirements(self, look: Look) -> dict[str, list[Requirement]]:
        """Plugin name to what it needs of the host."""
        found: dict[str, list[Requirement]] = {}
        for name, caller in self._callers("pycore_requirements"):
            results = self._guard(name, "pycore_requirements", "this host", caller, look=look)
            found[name] = [item for items in results for item in items]
        return found

    def validate(self, app: App) -> list[Problem]:
        """Problems of a spec that single fields do not show."""
        problems: list[Problem] = []
        for name, caller in self._callers("pycore_validate"):
            for found in self._guard(name, "pycore_validate", f"app {app.name}", caller, app=app):
                problems += found
        return problems

    def run_tables(self, source: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
        """The named tables that the spec of a ``pycore run`` needs beside its container."""
        merged: dict[str, dict[str, Any]] = {}
        for plugin, caller in self._callers("pycore_run"):
            for found in self._guard(plugin, "pycore_run", name, caller, source=source, name=name):
                for table, entries in found.items():
                    merged.setdefault(table, {}).update(entries)
        return merged

    def image(self, container: Container, host: Host) -> Found | None:
        """What a container's ``image`` means; None where nobody knows, or where what is wrong is in the problems."""
        return next((cast(Found, found) for _, found in self._ask("pycore_image", container, host)), None)

    def applied(self, app: App, host: Host) -> None:
        """Tell all that an app has been applied."""
        for name, caller in self._callers("pycore_applied"):
            self._guard(name, "pycore_applied", f"app {app.name}", caller, app=app, host=host)

    def describe(self, phase: Phase, container: Container, host: Host) -> tuple[Operation, ...]:
        """A phase's operations in the order of their steps and depths, equal ones in the order of plugin names."""
        hook = f"pycore_{phase.value}"
        operations: list[Operation] = []
        for name, found in self._ask(hook, container, host):
            for operation in cast(Iterable[Operation], found):
                if operation.step.phase is not phase:
                    raise PluginError(
                        f"plugin {name!r}: {hook} returned {type(operation).__name__}, "
                        f"which belongs to the {operation.step.phase.value} phase"
                    )
                operations.append(operation)
        return tuple(sorted(operations, key=lambda operation: (operation.step.order, operation.depth())))

    def snapshot(self, container: Container, host: Host) -> Snapshot:
        """The container's files. Raises PycoreError where its storage driver does not speak of them."""
        for _, found in self._ask("pycore_snapshot", container, host):
            return cast(Snapshot, found)
        driver = container.drivers.get("storage", "none")
        raise PycoreError(f"{container.full_name}: the storage driver {driver!r} cannot tell what it has changed")

    def log(self, container: Container, host: Host) -> Log:
        """What becomes of the container's output, as its logging driver says; without one, nothing is kept."""
        for _, log in self._ask("pycore_log", container, host):
            return cast("Log", log)
        from pycore.logs import NoLog

        return NoLog()

    def health(self, container: Container, host: Host) -> HealthCheck | None:
        """How to tell that a container is well, if anybody knows."""
        return next((cast(HealthCheck, found) for _, found in self._ask("pycore_health", container, host)), None)

    def restart(self, container: Container, end: End) -> float | None:
        """Seconds until a container that has ended is started again; None leaves it."""
        for name, caller in self._callers("pycore_restart"):
            if self._plays(name, container):
                where = container.full_name
                for answer in self._guard(name, "pycore_restart", where, caller, container=container, end=end):
                    return cast(float, answer)
        return None

    def ended(self, container: Container, host: Host, status: int | None) -> str:
        """Why a container ended, in words; empty where nobody knows more than its status says."""
        reasons: list[str] = []
        for name, caller in self._callers("pycore_ended"):
            if self._plays(name, container):
                arguments = {"container": container, "host": host, "status": status}
                reasons += self._guard(name, "pycore_ended", container.full_name, caller, **arguments)
        return "; ".join(reasons)

    def oom(self, container: Container, host: Host) -> AlarmSource | None:
        """What says that the kernel kills processes of it for want of memory, if anybody knows."""
        return next((cast(AlarmSource, found) for _, found in self._ask("pycore_oom", container, host)), None)

    def stats(self, container: Container, host: Host, pid: int) -> dict[str, float]:
        """What a running container uses, merged."""
        merged: dict[str, float] = {}
        for name, caller in self._callers("pycore_stats"):
            if self._plays(name, container):
                arguments = {"container": container, "host": host, "pid": pid}
                for found in self._guard(name, "pycore_stats", container.full_name, caller, **arguments):
                    merged.update(cast(Mapping[str, float], found))
        return merged

    def leftovers(self, host: Host, known: Collection[Operation]) -> list[Operation]:
        """Things of this pycore on the host that no container has."""
        found: list[Operation] = []
        for name, caller in self._callers("pycore_leftovers"):
            for operations in self._guard(name, "pycore_leftovers", "this host", caller, host=host, known=known):
                found += cast(Iterable[Operation], operations)
        return found

    def inspect(self, container: Container, host: Host) -> dict[str, Any]:
        """What plugins tell of a container, merged."""
        merged: dict[str, Any] = {}
        for _, found in self._ask("pycore_inspect", container, host):
            merged.update(cast(Mapping[str, Any], found))
        return merged

    def disk(self, host: Host, containers: Sequence[Container], running: Collection[str]) -> list[DiskUse]:
        """What plugins keep in the data dir."""
        found: list[DiskUse] = []
        for name, caller in self._callers("pycore_disk"):
            told = {"host": host, "containers": containers, "running": running}
            for uses in self._guard(name, "pycore_disk", "this host", caller, **told):
                found += uses
        return found

    def services(self, host: Host, kernel: Kernel) -> list[Service]:
        """What plugins do beside containers."""
        found: list[Service] = []
        for name, caller in self._callers("pycore_service"):
            found += self._guard(name, "pycore_service", "this host", caller, host=host, kernel=kernel)
        return found

    def idle(self, host: Host) -> None:
        """Tell all that there is time to tidy up."""
        for name, caller in self._callers("pycore_idle"):
            self._guard(name, "pycore_idle", "this host", caller, host=host)

    def _ask(self, hook: str, container: Container, host: Host) -> Iterator[tuple[str, object]]:
        """Call a hook of every plugin that takes part in the container's life."""
        for name, caller in self._callers(hook):
            if self._plays(name, container):
                for result in self._guard(name, hook, container.full_name, caller, container=container, host=host):
                    yield name, result

    def _plays(self, name: str, container: Container) -> bool:
        """Whether a plugin takes part in a container's life: all but drivers that were not chosen."""
        driver = self._driver_of.get(name)
        return driver is None or "container" not in driver.of or container.drivers.get(driver.area) == driver.name

    def _callers(self, hook: str) -> list[tuple[str, Caller]]:
        """The plugins that implement a hook, by name, each asked by itself.

        So a failure has a name, the order is ours, and a driver that was not chosen is not asked. Raises PluginError.
        """
        callers = self._cache.get(hook)
        if callers is None:
            found = getattr(self.manager.hook, hook).get_hookimpls()
            callers = self._cache[hook] = [(impl.plugin_name, _caller(impl)) for impl in found]
            callers.sort(key=lambda each: each[0])
        return callers

    # -- learning at start-up ----------------------------------------------------------------------------

    def _learn_drivers(self) -> None:
        for name, caller in self._callers("pycore_driver"):
            for driver in self._guard(name, "pycore_driver", "this host", caller):
                area = self.drivers.setdefault(driver.area, {})
                if driver.name in area:
                    raise PluginError(
                        f"two plugins are the {driver.area} driver {driver.name!r}; uninstall one of them"
                    )
                area[driver.name] = self._driver_of[name] = driver

    def _learn_sections(self) -> None:
        self.owners.append(Owner(Process, CORE))
        for name, caller in self._callers("pycore_sections"):
            for sections in self._guard(name, "pycore_sections", "this host", caller):
                self.owners += [Owner(section, name, self._driver_of.get(name)) for section in sections]

    def _check_owners(self) -> None:
        """No field has two owners, unless both are drivers of one area, of which a container has only one."""
        for index, one in enumerate(self.owners):
            for other in self.owners[index + 1 :]:
                shared = set(one.section.model_fields) & set(other.section.model_fields)
                if one.section.table == other.section.table and shared and not _exclusive(one.driver, other.driver):
                    raise PluginError(
                        f"plugins {one.plugin!r} and {other.plugin!r} both declare {min(shared)!r} "
                        f"in [{one.section.table}]"
                    )

    @staticmethod
    def _guard(name: str, hook: str, what: str, call: Callable[..., T], /, **arguments: Any) -> T:
        try:
            return call(**arguments)
        except PycoreError:
            raise
        except Exception as error:
            raise PluginError(
                f"plugin {name!r} failed in {hook} for {what}: {type(error).__name__}: {error}"
            ) from error


def _caller(impl: pluggy.HookImpl) -> Caller:
    """Calls it as pluggy calls one alone, with the arguments that it names, but without its machinery: that was a tenth
    of a plan. Raises PluginError for one that wraps others.
    """
    if impl.hookwrapper or impl.wrapper:
        words = f"{impl.function.__name__} wraps others, and each plugin is asked alone"
        raise PluginError(f"plugin {impl.plugin_name!r}: {words}")

    def call(**arguments: Any) -> list[Any]:
        result = impl.function(*[arguments[name] for name in impl.argnames])
        return [] if result is None else [result]

    return call


def _exclusive(one: Driver | None, other: Driver | None) -> bool:
    return one is not None and other is not None and one.area == other.area and one.name != other.name


def load_plugins(extra: Mapping[str, object] | None = None, *, rootless: bool = False) -> Plugins:
    """All installed plugins, and ``extra`` ones by name (for tests). Raises PluginError on a broken contract."""
    from importlib.metadata import entry_points

    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    broken: dict[str, str] = {}
    distributions: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            plugin = entry.load()
            if isinstance(plugin, type):
                plugin = plugin()
            manager.register(plugin, name=entry.name)
        except Exception as error:  # third-party code at import: anything can come out of it
            broken[entry.name] = f"{type(error).__name__}: {error}"
            continue
        if entry.dist is not None:
            distributions[entry.name] = f"{entry.dist.name} {entry.dist.version}"
    for name, plugin in sorted((extra or {}).items()):
        manager.register(plugin, name=name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    return Plugins(manager, broken=broken, distributions=distributions, rootless=rootless)
