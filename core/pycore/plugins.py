"""Finds plugins, knows the drivers and who owns which section, calls hooks with types.

All plugins come in through the entry-point group ``pycore``, ours and theirs alike. Order is by name,
never by registration. A plugin that cannot be imported is left out with a warning, unless a spec asks for
it by name: then it is an error that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pluggy

from pycore.errors import PluginError, Problem, PycoreError
from pycore.hookspecs import GROUP, Driver, Hooks, Host, Requirement
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import App, Container, Process, Section
from pycore.steps import Phase

T = TypeVar("T")

CORE = "core"
"""The name under which the core's own section is listed."""


@dataclass(frozen=True)
class Owner:
    """A section and the plugin it came from; ``driver`` is set where it counts only for that driver."""

    section: type[Section]
    plugin: str
    driver: Driver | None = None


@dataclass
class Plugins:
    """The installed plugins of this process."""

    manager: pluggy.PluginManager
    drivers: dict[str, dict[str, Driver]] = field(default_factory=dict[str, dict[str, Driver]])
    """Area to name to driver."""
    owners: list[Owner] = field(default_factory=list[Owner])
    """Every section, the core's first, then by plugin name."""
    broken: dict[str, str] = field(default_factory=dict[str, str])
    """Entry points that could not be loaded, and why."""
    distributions: dict[str, str] = field(default_factory=dict[str, str])
    """Plugin name to the distribution and version it came from."""
    _driver_plugins: dict[tuple[str, str], object] = field(default_factory=dict[tuple[str, str], object])

    # -- what there is -----------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of the loaded plugins, sorted."""
        return sorted(name for name, _ in self.manager.list_name_plugin())

    def areas(self) -> list[str]:
        """The areas that have drivers, sorted."""
        return sorted(self.drivers)

    def default_driver(self, area: str) -> str:
        """The driver of an area that serves where none is named."""
        chosen = [driver.name for driver in self.drivers[area].values() if driver.default]
        return min(chosen or self.drivers[area])

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

    def requirements(self, look: Look) -> dict[str, list[Requirement]]:
        """Plugin name to what it needs of the host."""
        found: dict[str, list[Requirement]] = {}
        for name in self.names():
            caller = self._only(name, "pycore_requirements")
            found[name] = [item for items in caller(look=look) for item in items]
        return found

    def validate(self, app: App) -> list[Problem]:
        """Problems of a spec that single fields do not show."""
        return self._gather("pycore_validate", f"app {app.name}", app=app)

    def describe(self, phase: Phase, container: Container, host: Host) -> list[Operation]:
        """A phase's operations in the order of their steps, equal steps in the order of plugin names."""
        hook = f"pycore_{phase.value}"
        operations: list[Operation] = []
        for name in self.names():
            found = self._call(name, hook, container, host)
            for operation in found:
                if operation.step.phase is not phase:
                    raise PluginError(
                        f"plugin {name!r}: {hook} returned {type(operation).__name__}, "
                        f"which belongs to the {operation.step.phase.value} phase"
                    )
            operations += found
        return sorted(operations, key=lambda operation: operation.step.order)

    def inspect(self, container: Container, host: Host) -> dict[str, Any]:
        """What plugins tell of a container, merged."""
        merged: dict[str, Any] = {}
        for name in self.names():
            if self._plays(name, container):
                for found in self._guard(
                    name, "pycore_inspect", container.full_name, self._only(name, "pycore_inspect"),
                    container=container, host=host,
                ):  # fmt: skip
                    merged.update(found)
        return merged

    def _call(self, name: str, hook: str, container: Container, host: Host) -> list[Operation]:
        if not self._plays(name, container):
            return []
        results = self._guard(
            name, hook, container.full_name, self._only(name, hook), container=container, host=host
        )
        return [operation for result in results for operation in cast(Iterable[Operation], result)]

    def _plays(self, name: str, container: Container) -> bool:
        """Whether a plugin takes part in a container's life: all do but drivers that were not chosen."""
        plugin = self.manager.get_plugin(name)
        return all(
            plugin is not driver or container.drivers.get(area) == chosen
            for (area, chosen), driver in self._driver_plugins.items()
        )

    def _gather(self, hook: str, what: str, **arguments: Any) -> list[Any]:
        gathered: list[Any] = []
        for name in self.names():
            for result in self._guard(name, hook, what, self._only(name, hook), **arguments):
                gathered += result
        return gathered

    def _only(self, name: str, hook: str) -> pluggy.HookCaller:
        """The hook with every plugin but one left out: so a failure has a name, and order is ours."""
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name and plugin is not None]
        return self.manager.subset_hook_caller(hook, others)

    @staticmethod
    def _guard(name: str, hook: str, what: str, call: Callable[..., T], **arguments: Any) -> T:
        try:
            return call(**arguments)
        except PycoreError:
            raise
        except Exception as error:
            raise PluginError(
                f"plugin {name!r} failed in {hook} for {what}: {type(error).__name__}: {error}"
            ) from error


def load_plugins(extra: Mapping[str, object] | None = None) -> Plugins:
    """All installed plugins, and ``extra`` ones by name (for tests). Raises PluginError on a broken contract."""
    from importlib.metadata import entry_points

    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    plugins = Plugins(manager)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            plugin = entry.load()
            if isinstance(plugin, type):
                plugin = plugin()
            manager.register(plugin, name=entry.name)
        except Exception as error:  # third-party code at import: anything can come out of it
            plugins.broken[entry.name] = f"{type(error).__name__}: {error}"
            continue
        if entry.dist is not None:
            plugins.distributions[entry.name] = f"{entry.dist.name} {entry.dist.version}"
    for name, plugin in sorted((extra or {}).items()):
        manager.register(plugin, name=name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    _learn_drivers(plugins)
    _learn_sections(plugins)
    return plugins


def _learn_drivers(plugins: Plugins) -> None:
    for name in plugins.names():
        for driver in cast(list["Driver | None"], plugins._only(name, "pycore_driver")()):  # pyright: ignore[reportPrivateUsage]
            if driver is None:
                continue
            area = plugins.drivers.setdefault(driver.area, {})
            if driver.name in area:
                raise PluginError(f"two plugins are the {driver.area} driver {driver.name!r}; uninstall one of them")
            area[driver.name] = driver
            plugins._driver_plugins[driver.area, driver.name] = plugins.manager.get_plugin(name)  # pyright: ignore[reportPrivateUsage]


def _learn_sections(plugins: Plugins) -> None:
    plugins.owners.append(Owner(Process, CORE))
    for name in plugins.names():
        plugin = plugins.manager.get_plugin(name)
        driver = next(
            (
                plugins.drivers[area][chosen]
                for (area, chosen), owner in plugins._driver_plugins.items()  # pyright: ignore[reportPrivateUsage]
                if owner is plugin
            ),
            None,
        )
        for sections in plugins._only(name, "pycore_sections")():  # pyright: ignore[reportPrivateUsage]
            plugins.owners += [Owner(section, name, driver) for section in sections]
    _check_owners(plugins)


def _check_owners(plugins: Plugins) -> None:
    """No field has two owners, unless both are drivers of one area, of which a container has only one."""
    for index, one in enumerate(plugins.owners):
        for other in plugins.owners[index + 1 :]:
            if one.section.table != other.section.table:
                continue
            exclusive = one.driver and other.driver and one.driver.area == other.driver.area and one.driver != other.driver
            shared = set(one.section.model_fields) & set(other.section.model_fields)
            if shared and not exclusive:
                raise PluginError(
                    f"plugins {one.plugin!r} and {other.plugin!r} both declare {min(shared)!r} in [{one.section.table}]"
                )
