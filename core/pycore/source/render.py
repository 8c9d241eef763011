"""Problems as text for a terminal: the place, the source line, a caret below it, the way out."""

from __future__ import annotations

from collections.abc import Sequence

from pycore.errors import Problem

_WIDTH = 100
"""Characters of a source line that are shown."""
_INDENT = "    "


def render(problems: Sequence[Problem]) -> str:
    """One paragraph for each problem, ready to be printed; ends without a newline."""
    return "\n".join(_paragraph(problem) for problem in problems)


def _paragraph(problem: Problem) -> str:
    place = f"{problem.file}:{problem.line}:{problem.column}: " if problem.line else ""
    lines = [_safe(f"{place}{problem.message}")]
    if problem.source.strip():
        source, column = _window(problem.source.rstrip(), problem.column)
        lines += [_INDENT + _safe(source), _INDENT + _below(source[: column - 1]) + "^"]
    if problem.hint:
        lines.append(_INDENT + _safe(problem.hint))
    return "\n".join(lines)


def _window(source: str, column: int) -> tuple[str, int]:
    """The part of a long line around a column, and the column in it."""
    if len(source) <= _WIDTH:
        return source, column
    start = max(0, min(column - _WIDTH // 2, len(source) - _WIDTH))
    part = source[start : start + _WIDTH]
    if start + _WIDTH < len(source):
        part = part[:-3] + "..."
    if start:
        part = "..." + part[3:]
    return part, column - start


def _below(text: str) -> str:
    """Blanks as wide as the text in a terminal; a tab stays a tab, since it depends on where it begins."""
    return "".join("\t" if char == "\t" else " " * _width(char) for char in text)


def _width(char: str) -> int:
    """Columns that a character takes (Unicode Standard Annex 11)."""
    if char.isascii():
        return 1
    import unicodedata

    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _safe(text: str) -> str:
    """The text without what a terminal would obey: a file may be anybody's."""
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
