"""Which tables a spec can have, what may stand in each, and whose it is: learned from the plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def of_word(self, word: str) -> dict[str, Any] | None:
        """What one word in the place of this table stands for: a driver, or what a section says; None for nothing."""
        if word in self.choices:
            return {DRIVER: word}
        meant = (owner.section.of_word(word) for owner in self.owners)
        return next((dict(table) for table in meant if table is not None), None)


def tables(plugins: Plugins) -> dict[str, list[Table]]:
    """Kind to its tables, the kind's own first: ``{"container": [container.*, container.*.isolation, ...]}``."""
    patterns = {*plugins.tables(), *(f"{CONTAINER}.*.{area}" for area in plugins.areas(CONTAINER))}
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
    choices = tuple(plugins.choices(area, kind))
    if not choices:
        return Table(pattern, kind, word, owners)
    return Table(pattern, kind, word, owners, area, choices, plugins.default_driver(area, kind))
