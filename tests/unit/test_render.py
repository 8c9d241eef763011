"""Problems on a terminal: the caret stands below its place, and nothing that a terminal would obey comes through."""

from __future__ import annotations

import subprocess
import sys
from unicodedata import east_asian_width

import pytest
from pycore.errors import Problem
from pycore.source.render import render


def shown(source: str, column: int, message: str = "wrong", hint: str | None = None) -> list[str]:
    return render([Problem((), message, hint, False, "app.toml", 3, column, source)]).splitlines()


@pytest.mark.parametrize(
    ("source", "column", "below"),
    [
        ("image = 80", 9, "        ^"),
        ("\t\timage = 80", 11, "\t\t        ^"),
        ('a = "界界" # x', 10, "           ^"),
        ("a = 'e\N{COMBINING ACUTE ACCENT}' x", 10, "        ^"),
        ("end", 4, "   ^"),
    ],
)
def test_the_caret_stands_below_its_place(source: str, column: int, below: str) -> None:
    assert shown(source, column) == [f"app.toml:3:{column}: wrong", f"    {source}", f"    {below}"]


@pytest.mark.parametrize("column", [1, 40, 500, 960, 1000, 1001])
def test_a_long_line_is_cut_around_the_place(column: int) -> None:
    source = "".join(f"{number:_<10}" for number in range(100))
    _, line, caret = shown(source, column)
    assert len(line) <= 104
    place = caret.index("^")
    if column <= 1000 and line[place] != ".":
        assert line[place] == source[column - 1]
    assert place <= len(line)


def test_what_a_terminal_would_obey_is_replaced() -> None:
    lines = shown("a = '\x1b[31m\u202e'", 5, "bad \x1b]0;x\x07", "hint \x9b")
    assert not any(ord(char) < 32 or char in "\x1b\x9b\u202e" for line in lines for char in line)
    assert east_asian_width("\N{REPLACEMENT CHARACTER}") != "W"


def test_a_problem_without_a_place_is_its_message() -> None:
    assert render([Problem(("a",), "wrong", "mend it")]) == "wrong\n    mend it"


def test_the_client_can_render_without_the_heavy_modules() -> None:
    program = (
        "import sys, pycore.source.render; "
        "print(sorted({'pydantic', 'tomli', 'pluggy', 'hypothesis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
