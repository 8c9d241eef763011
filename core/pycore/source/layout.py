"""Which tables a spec can have, what may stand in each, and whose it is: learned from the plugins."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.plugins import Owner, Plugins

CONTAINER = "container"
DRIVER = "driver"
"""The key that chooses a driver; it is the core's, in every area's table."""


@dataclass(frozen=True)
class Table:
    """One kind of table: ``[container.NAME.network]`` has the kind ``container`` and the word ``network``."""

    pattern: str
    kind: str
    word: str
    """Empty for ``[container.NAME]`` itself."""
    owners: tuple[Owner, ...]
    area: str = ""
    """The area whose driver is chosen here with ``driver = "NAME"``, or empty."""
    choices: tuple[str, ...] = ()
    """The drivers that can be chosen here."""
    default: str = ""

    def fields(self) -> list[str]:
        """Every key that any plugin knows here, in the order of declaration."""
        return list(dict.fromkeys(name for owner in self.owners for name in owner.section.model_fields))


def tables(plugins: Plugins) -> dict[str, list[Table]]:
    """Kind to its tables, the kind's own first: ``{"container": [container.*, container.*.isolation, ...]}``."""
    patterns = {*plugins.tables(), *(f"{CONTAINER}.*.{area}" for area in plugins.areas())}
    kinds: dict[str, list[Table]] = {}
    for pattern in sorted(patterns):
        table = _table(pattern, plugins)
        kinds.setdefault(table.kind, []).append(table)
    return kinds


def _table(pattern: str, plugins: Plugins) -> Table:
    kind, _, word = pattern.partition(".*")
    word = word.removeprefix(".")
    owners = tuple(plugins.sections_of(pattern))
    area = word if kind == CONTAINER else kind if not word else ""
    choices = _choices(kind, area, owners, plugins)
    if not choices:
        return Table(pattern, kind, word, owners)
    usual = plugins.default_driver(area)
    return Table(pattern, kind, word, owners, area, choices, usual if usual in choices else choices[0])


def _choices(kind: str, area: str, owners: tuple[Owner, ...], plugins: Plugins) -> tuple[str, ...]:
    """A container chooses among all drivers of an area; ``[network.NAME]`` among those that have a say there."""
    if kind == CONTAINER:
        return tuple(sorted(plugins.drivers.get(area, ())))
    return tuple(sorted({owner.driver.name for owner in owners if owner.driver and owner.driver.area == area}))
