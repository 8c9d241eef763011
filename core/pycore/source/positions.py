"""Where in a TOML file each key and value stands: no parser keeps that for a valid file.

The scanner trusts that the file was parsed before (by tomli, which is strict) and only walks over it. It
runs when there is an error to show, never on the way to a container.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import tomli

Path = tuple[str | int, ...]

# Unrolled loops, where each character can be matched in one way only: linear like possessive quantifiers,
# which the Python of Debian 12 (3.11.2) gets wrong.
_BLANK = re.compile(r"[ \t\n]*(?:#[^\n]*[ \t\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'  # up to two quotes may stand before the closing three
    r"|'''[^']*(?:'(?!'')[^']*)*'{3,5}"
    r'|"[^"\\]*(?:\\.[^"\\]*)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_BRACKET = re.compile(r"[\[\]{}]|#[^\n]*|[^\[\]{}#\"']+")
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]+|[^\s,\]}#]+")  # a date and a time may have a space between

DEPTH = 64
"""Paths longer than this are not kept: no spec has them, and a hostile file could make them by the million."""


@dataclass(frozen=True)
class Place:
    """Offsets into the text: where the key begins (an array's item has none: its value), and the value's ends."""

    key: int
    start: int
    end: int


def places(text: str) -> dict[Path, Place]:
    """The place of every key and array item of a valid TOML text, in which every line ends with LF alone.

    A table's place is its own header, or the first key that names it where it has none. The empty path is
    the whole text.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


def line_column(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1; a column is one character, a tab too."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


class _Scanner:
    """One pass over a valid text; ``pos`` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.found: dict[Path, Place] = {(): Place(0, 0, len(text))}
        self.implied: set[Path] = set()
        """Tables that were only named on the way to another; a header of their own is the better place."""
        self.lengths: dict[Path, int] = {}
        """Arrays of tables, and how many tables each has so far."""

    def document(self) -> None:
        table: Path = ()
        while self._more():
            if self.text.startswith("[[", self.pos):
                table = self._array_header()
            elif self.text[self.pos] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        self.pos += 1
        keys = self._keys()
        self.pos += 1
        parent, end = self._way((), keys), self.pos
        name, start = keys[-1]
        path = (*parent, name)
        self._place(path, Place(start, start, end))
        return path

    def _array_header(self) -> Path:
        self.pos += 2
        keys = self._keys()
        self.pos += 2
        parent, end = self._way((), keys), self.pos
        name, start = keys[-1]
        array = (*parent, name)
        index = self.lengths.setdefault(array, 0)
        self.lengths[array] += 1
        if index == 0:
            self._place(array, Place(start, start, end))
        path = (*array, index)
        self._place(path, Place(start, start, end))
        return path

    def _pair(self, table: Path) -> None:
        """``key = value``; the value's place is written before it is entered, so that its end comes last."""
        keys = self._keys()
        parent = self._way(table, keys)
        self.pos += 1  # the equals sign
        self._skip(_SPACE)
        name, start = keys[-1]
        self._value((*parent, name), start)

    def _way(self, table: Path, keys: list[tuple[str, int]]) -> Path:
        """From a table along all keys but the last; on the way, a name that is an array means its last table."""
        path = table
        for name, start in keys[:-1]:
            path = (*path, name)
            if len(path) > DEPTH:
                return path
            if path not in self.found:
                self.found[path] = Place(start, start, start + len(name))
                self.implied.add(path)
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)
        return path

    def _place(self, path: Path, place: Place) -> None:
        if len(path) <= DEPTH and (path not in self.found or path in self.implied):
            self.found[path] = place
            self.implied.discard(path)

    def _keys(self) -> list[tuple[str, int]]:
        """A key with its dots, as (name, offset) pairs; stops after the blanks behind it."""
        keys: list[tuple[str, int]] = []
        while True:
            self._skip(_SPACE)
            start = self.pos
            quoted = self.text[self.pos] in "\"'"
            raw = self._skip(_STRING if quoted else _BARE_KEY)
            keys.append((_unquote(raw) if quoted else raw, start))
            self._skip(_SPACE)
            if self.text[self.pos] != ".":
                return keys
            self.pos += 1

    def _value(self, path: Path, key: int) -> None:
        start = self.pos
        opening = self.text[start]
        if len(path) > DEPTH:
            self._over()
            return
        if opening == "[":
            for index in self._items("]"):
                self._value((*path, index), self.pos)
        elif opening == "{":
            for _ in self._items("}"):
                self._pair(path)
        else:
            self._skip(_STRING if opening in "\"'" else _SCALAR)
        self.found[path] = Place(key, start, self.pos)

    def _over(self) -> None:
        """Pass over a value without looking into it."""
        depth = 0
        while True:
            char = self.text[self.pos]
            if char in "\"'":
                self._skip(_STRING)
            elif depth or char in "[{":
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(char, 0)
                self._skip(_BRACKET)
            else:
                self._skip(_SCALAR)
            if not depth:
                return

    def _items(self, closing: str) -> Iterator[int]:
        """Stand at each item of an array or inline table in turn, and behind its end after the last."""
        self.pos += 1
        index = 0
        while self._more() and self.text[self.pos] != closing:
            yield index
            index += 1
            if self._more() and self.text[self.pos] == ",":
                self.pos += 1
        self.pos += 1

    def _more(self) -> bool:
        self._skip(_BLANK)
        return self.pos < len(self.text)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.pos)
        if match is None:
            raise ValueError(f"not a valid TOML text at offset {self.pos}")
        self.pos = match.end()
        return match.group()


def _unquote(raw: str) -> str:
    return str(tomli.loads(f"key = {raw}")["key"])
