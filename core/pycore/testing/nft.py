"""nftables in memory: tables with their sets and maps, the commands of nft(8) that make them, and what fills them."""

from __future__ import annotations

import copy
import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pycore.linux.nftelements import Change, Element, Put
from pycore.testing.files import fail

_COMMAND = re.compile(r"(?:[^;\n{]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})+")
"""A command ends with its line or a semicolon, but not inside braces, which may be three deep."""
_TABLE = re.compile(r"(?:add |create )?table (?P<table>\w+ \S+)(?: (?P<body>\{.*))?", re.DOTALL)
_DELETE_TABLE = re.compile(r"(?P<verb>delete|destroy) table (?P<table>\w+ \S+)")
_ADD_SET = re.compile(r"add (?:set|map|chain) (?P<table>\w+ \S+) (?P<name>\S+).*", re.DOTALL)
_FLUSH = re.compile(r"flush (?:set|map) (?P<table>\w+ \S+) (?P<set>\S+)")
_ELEMENT = re.compile(r"add element (?P<table>\w+ \S+) (?P<set>\S+) \{(?P<elements>.*)\}", re.DOTALL)
_INNER = re.compile(r"\b(?:set|map) (\w+) \{")
_BESIDE = re.compile(r' counter packets \d+ bytes \d+| comment "[^"]*"')


@dataclass
class Nft:
    """Table (``inet pycore``) to the name of a set or map to its elements; a set's elements have an empty value."""

    tables: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict[str, dict[str, dict[str, str]]])
    foreign: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """Tables that a test has somebody else make: for each its contents as JSON, and those of its sets by name."""

    packets: dict[tuple[str, str, str], int] = field(default_factory=dict[tuple[str, str, str], int])
    """What a test has elements count: table, set or map, and key to packets."""

    def run(self, commands: str) -> None:
        """Run commands as one transaction. Raises OSError: ENOENT, EEXIST, EINVAL for what this fake does not know."""
        after = Nft(copy.deepcopy(self.tables), self.foreign, self.packets)
        for command in _COMMAND.findall(re.sub(r"#[^\n]*", "", commands)):
            if command.strip():
                after._run(" ".join(command.split()))
        self.tables = after.tables

    def change(self, table: str, changes: Sequence[Change]) -> None:
        """Put elements in and take them out, all or none. Raises OSError: ENOENT, EEXIST."""
        after = Nft(copy.deepcopy(self.tables))
        for each in changes:
            of = each.element
            there = after._set(f"{of.family} {table}", of.place)
            if isinstance(each, Put):
                if there.setdefault(of.key, of.value) != of.value:
                    raise fail(errno.EEXIST, str(of))
            elif there.pop(of.key, None) is None:
                raise fail(errno.ENOENT, str(of))
        self.tables = after.tables

    def counted(self, table: str, element: Element) -> int | None:
        """The packets of an element; None where it is not there with its value."""
        name = f"{element.family} {table}"
        if self.tables.get(name, {}).get(element.place, {}).get(element.key) != element.value:
            return None
        return self.packets.get((name, element.place, element.key), 0)

    def _run(self, command: str) -> None:
        if match := _ELEMENT.fullmatch(command):
            self._add(self._set(match["table"], match["set"]), match["elements"])
        elif match := _FLUSH.fullmatch(command):
            self._set(match["table"], match["set"]).clear()
        elif match := _DELETE_TABLE.fullmatch(command):
            if match["table"] not in self.tables and match["verb"] != "destroy":
                raise fail(errno.ENOENT, match["table"])
            self.tables.pop(match["table"], None)
        elif match := _ADD_SET.fullmatch(command):
            self._table(match["table"]).setdefault(match["name"], {})
        elif match := _TABLE.fullmatch(command):
            table = self.tables.setdefault(match["table"], {})
            for name in _INNER.findall(match["body"] or ""):
                table.setdefault(name, {})
        else:
            raise fail(errno.EINVAL, command)

    def _table(self, name: str) -> dict[str, dict[str, str]]:
        if name not in self.tables:
            raise fail(errno.ENOENT, name)
        return self.tables[name]

    def _set(self, table: str, name: str) -> dict[str, str]:
        sets = self._table(table)
        if name not in sets:
            raise fail(errno.ENOENT, f"{table} {name}")
        return sets[name]

    @staticmethod
    def _add(elements: dict[str, str], text: str) -> None:
        for element in text.split(","):
            key, _, value = _BESIDE.sub("", element).partition(" : ")
            if elements.setdefault(key.strip(), value.strip()) != value.strip():
                raise fail(errno.EEXIST, key)
