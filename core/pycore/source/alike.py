"""What was read before of tables like this one: equal ones give equal sections, and a thousand containers are alike.

Sections are frozen and come of nothing but what is written, so one serves all containers that say the same. So it does
from one reading of a file to the next, and for the records of containers, each of which holds its part of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pycore.plugins import Plugins
from pycore.source.layout import Table, tables
from pycore.spec import Section

_MOST = 4096
"""Tables that are remembered,"""
_LONGEST = 4096
"""and characters of one that is."""

Key = tuple[str, tuple[str, ...], str]
"""A table's place, the drivers that were chosen beside it, and what is written in it.

That is its ``repr``, since 1, 1.0 and true are equal in Python and not in a file.
"""
Made = Mapping[type[Section], Section]


class Alike:
    """What one set of plugins made of tables in which nothing was wrong. Any thread may ask."""

    def __init__(self, kinds: Mapping[str, list[Table]]) -> None:
        self.kinds = kinds
        self._made: dict[Key, Made] = {}

    def made(self, key: Key) -> Made | None:
        """The sections of such a table, if one was read before."""
        return self._made.get(key)

    def remember(self, key: Key, sections: Made) -> None:
        """Sections of a table, for the next one like it."""
        if len(key[2]) > _LONGEST:
            return
        if len(self._made) >= _MOST:  # so many different ones have little in common
            self._made.clear()
        self._made[key] = sections


@lru_cache(maxsize=4)
def alike(plugins: Plugins) -> Alike:
    """What is remembered for a set of plugins. A process has one set; in tests there may be more."""
    return Alike(tables(plugins))
