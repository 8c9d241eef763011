"""What a terminal gets instead of plain text: colours, tables that fit its width, lines that change in place.

The only file that imports rich, and it does so inside functions: a command whose output is piped never
pays for it, and neither does a supervisor that nobody looks at.
"""

from __future__ import annotations

import fcntl
import io
import os
import struct
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycore.cli.text import harmless, one_line

if TYPE_CHECKING:
    from pycore.cli.session import Session

_NARROW = 8
"""Columns that a column which gives way keeps."""


@dataclass(frozen=True)
class Cell:
    """A word in a table, with the colour that a terminal shows it in."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    head: str
    shrinks: bool = False
    """Whether a narrow terminal cuts it first."""
    right: bool = False
    """Whether it holds numbers."""


def rendered(session: Session, head: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> str:
    """A table as text for the client's terminal: no line is wider, and every word of it is harmless."""
    from rich.cells import cell_len, set_cell_size

    width, _ = terminal_size(session.stdio[1], session.environment)
    heads = [[Cell(column.head, "bold") for column in head]] if any(column.head for column in head) else []
    lines = [[Cell(one_line(cell.text) or "-", cell.style) for cell in line] for line in (*heads, *rows)]
    natural = [max((cell_len(line[place].text) for line in lines), default=0) for place in range(len(head))]
    widths = _fit(head, natural, width)
    colour = _colours(session.environment)

    def words(line: Sequence[Cell]) -> Iterator[str]:
        room = width
        for cell, column, size in zip(line, head, widths, strict=True):
            if room <= 0:
                return
            text = cell.text if cell_len(cell.text) <= size else set_cell_size(cell.text, size - 1) + "…"
            space = " " * (size - cell_len(text))
            shown = space + text if column.right else text + space
            yield colour(set_cell_size(shown, min(size, room)), cell.style)
            room -= size + 2

    return "".join("  ".join(words(line)).rstrip(" ") + "\n" for line in lines)


def coloured(session: Session, text: str, styles: Mapping[str, str]) -> str:
    """Lines for the client's terminal, each in the style that goes with its first character; all of it is harmless."""
    colour = _colours(session.environment)
    lines = (harmless(line) for line in text.splitlines())
    return "".join(colour(line, styles.get(line[:1], "")) + "\n" for line in lines)


def _colours(environment: Mapping[str, str]) -> Callable[[str, str], str]:
    """Puts a style on a word, as far as the terminal and what its environment says allow."""
    from rich.console import COLOR_SYSTEMS, Console

    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ=environment)
    system = COLOR_SYSTEMS.get(console.color_system or "")

    def colour(word: str, name: str) -> str:
        if system is None or not name or not word:
            return word
        style = console.get_style(name)
        return (style.without_color if console.no_color else style).render(word, color_system=system)

    return colour


def _fit(head: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """The columns' widths in a terminal: those that shrink give way, the widest first, but never all of it."""
    fitting = list(widths)
    shrinking = [place for place, column in enumerate(head) if column.shrinks]
    over = sum(fitting) + 2 * (len(fitting) - 1) - width
    while over > 0 and shrinking:
        widest = max(shrinking, key=lambda place: fitting[place])
        if fitting[widest] <= _NARROW:
            break
        fitting[widest] -= 1
        over -= 1
    return fitting


class Painting:
    """Lines in a terminal that are painted over as things change.

    The cursor stays visible and nothing is to be restored, so it does not matter how the command ends.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lines = 0

    def paint(self, head: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        """Paint a table over what was there before; what does not fit into the terminal is left out."""
        _, height = terminal_size(self._session.stdio[1], self._session.environment)
        lines = rendered(self._session, head, rows).splitlines()[: max(1, height - 1)]
        back = f"\x1b[{self._lines}F" if self._lines else ""
        text = back + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"
        self._session.write(1, text.encode("utf-8", "replace"))
        self._lines = len(lines)


def terminal_size(fd: int, environment: Mapping[str, str]) -> tuple[int, int]:
    """(columns, lines): as the environment says, else as the terminal does, else 80 to 24."""
    try:
        lines, columns = struct.unpack("HH4x", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        lines = columns = 0
    said = environment.get("COLUMNS", "")
    return int(said) if said.isascii() and said.isdigit() and 0 < len(said) < 5 else columns or 80, lines or 24


def is_terminal(fd: int, environment: Mapping[str, str]) -> bool:
    """Whether it is a terminal, and one that can do more than print line after line."""
    return os.isatty(fd) and environment.get("TERM") != "dumb"


def show_table(session: Session, head: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table that fits into the client's terminal."""
    session.write(1, rendered(session, head, rows).encode("utf-8", "replace"))
