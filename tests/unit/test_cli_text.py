"""Words for people: nothing of a container's own choice steers the terminal that shows them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.cli.moments import moment
from pycore.cli.text import columns, harmless, one_line, short, size, span
from pycore.errors import UsageError


@pytest.mark.parametrize(
    ("evil", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("back\rover", "back\\x0dover"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udc9b31m", "\\x9b31m"),
        ("a\tb\n", "a\tb\n"),
        ("naïve ✔ 漢字", "naïve ✔ 漢字"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(evil: str, shown: str) -> None:
    assert harmless(evil) == shown


@given(st.text(st.characters()))
def test_no_control_character_comes_through(text: str) -> None:
    left = {char for char in harmless(text) if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")}
    assert left <= {"\t", "\n"}
    harmless(text).encode()
    assert "\n" not in one_line(text)


@given(st.lists(st.lists(st.text(st.characters()), min_size=3, max_size=3), max_size=5))
def test_a_plain_table_can_be_taken_apart_again(rows: list[list[str]]) -> None:
    head, *lines = columns(("ONE", "TWO", "THREE"), rows).splitlines()
    assert head.split() == ["ONE", "TWO", "THREE"]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = [cell for cell in line.split("  ") if cell.strip(" ")]
        assert [cell.strip(" ") for cell in cells] == [one_line(cell) or "-" for cell in row]


def test_words_are_short() -> None:
    assert short("a" * 50, 10) == "a" * 9 + "…"
    assert [span(each) for each in (-1, 59.9, 60, 7200, 200_000)] == ["0s", "59s", "1m", "2h", "2d"]
    assert [size(each) for each in (0, 999, 1024, 1536, 1 << 20, 150 << 20, 5 << 40)] == [
        "0", "999", "1K", "1.5K", "1M", "150M", "5T",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("1772366400", 1772366400.0),
        ("1772366400.25", 1772366400.25),
        ("2026-03-01T12:00:00Z", 1772366400.0),
        ("2026-03-01T13:00:00+01:00", 1772366400.0),
        ("10m", 400.0),
        ("500ms", 999.5),
    ],
)
def test_a_moment_is_a_date_or_seconds_or_so_long_ago(word: str, seconds: float) -> None:
    assert moment(word, 1000.0) == seconds


@pytest.mark.parametrize(
    "word", ["", "yesterday", "10", "-5m", "1e999", "2026-13-01", "nan", "inf", "1.2.3", "9" * 400]
)
def test_what_is_no_moment_is_said(word: str) -> None:
    if word == "10":
        assert moment(word) == 10.0
        return
    with pytest.raises(UsageError):
        moment(word)
