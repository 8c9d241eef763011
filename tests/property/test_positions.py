"""The scanner finds what tomli parsed, wherever and however it was written."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from pycore.source.positions import DEPTH, Path, line_column, places

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
INNER = st.text("aé界\u202e \"\\#[]{}'=,.", max_size=6)


def escaped(text: str) -> str:
    return "".join(f"\\U{ord(char):08X}" if char in '"\\\t\n' or not char.isprintable() else char for char in text)


basic = INNER.map(lambda text: f'"{escaped(text)}"')
literal = INNER.map(lambda text: "'{}'".format(text.replace("'", "")))
multi_basic = st.sampled_from(['"""\n a "quoted" \\\n  b"""', '""""two"""""', '"""x = [ # {"""', '"""\\""""', '""""""'])
multi_literal = st.sampled_from(["'''\n]'a''\n'''", "'''''two'''''", "''''''", "'''\\'''"])
number = st.sampled_from(["0", "-17", "1_000", "0xdead", "1e5", "-inf", "nan", "3.5"])
moment = st.sampled_from(["1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "07:32:00", "1979-05-27 07:32:00.5"])
scalar = st.one_of(basic, literal, multi_basic, multi_literal, number, moment, st.sampled_from(["true", "false"]))
space = st.sampled_from(["", " ", "\t", "  "])
blank = st.sampled_from(["", " ", "\n", " # [ ' } comment\n", "\t\n"])
key_part = st.one_of(BARE, basic, literal)


@st.composite
def dotted_key(draw: st.DrawFn) -> str:
    parts = draw(st.lists(key_part, min_size=1, max_size=3))
    return f"{draw(space)}.{draw(space)}".join(parts)


@st.composite
def array(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = draw(st.lists(inner, max_size=3))
    body = ",".join(draw(blank) + item + draw(blank) for item in items)
    comma = draw(st.sampled_from(["", ",", ",\n"])) if items else ""
    return f"[{body}{comma}{draw(blank)}]"


@st.composite
def inline_table(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    keys = draw(st.lists(dotted_key(), max_size=3))
    pairs = [f"{draw(blank)}{key}{draw(space)}={draw(space)}{draw(inner)}{draw(blank)}" for key in keys]
    comma = draw(st.sampled_from(["", ","])) if keys else ""
    return "{" + ",".join(pairs) + comma + draw(blank) + "}"


value = st.recursive(scalar, lambda inner: st.one_of(array(inner), inline_table(inner)), max_leaves=6)


@st.composite
def statement(draw: st.DrawFn) -> str:
    key = draw(dotted_key())
    shape = draw(st.sampled_from(["{} = {}", "[{}]", "[[{}]]", "[ {} ] # [x]"]))
    return draw(space) + shape.format(key, draw(value)) + draw(st.sampled_from(["", " # c", "\t"]))


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Valid TOML: statements that the parser refuses at their place (a key twice) are left out."""
    kept: list[str] = []
    end = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\n# ]]\n"]))
    for line in draw(st.lists(statement(), max_size=8)):
        try:
            tomli.loads("\n".join([*kept, line]))
        except tomli.TOMLDecodeError:
            continue
        kept.append(line)
    return end.join(kept)


def paths_of(value: Any, path: Path = ()) -> dict[Path, Any]:
    found = {path: value}
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        found |= paths_of(each, (*path, key))
    return found


def written(text: str) -> Any:
    """What a piece of the text says, read by the parser."""
    return tomli.loads(f"x = {text}")["x"]


@given(documents())
def test_every_path_is_found_and_every_value_is_what_stands_there(text: str) -> None:
    text = text.replace("\r\n", "\n")
    found = places(text)
    wanted = paths_of(tomli.loads(text))
    assert set(found) == set(wanted)
    for path, expected in wanted.items():
        place = found[path]
        if path and isinstance(path[-1], str):
            raw = text[place.key :]
            assert key_at(raw) == path[-1]
        if not isinstance(expected, dict | list):
            assert repr(written(text[place.start : place.end])) == repr(expected)


def key_at(raw: str) -> str:
    """The first part of the key with which the text begins."""
    for end in range(1, len(raw) + 1):
        if raw[end : end + 1] not in (".", "=", "]", " ", "\t"):
            continue
        try:
            return next(iter(tomli.loads(f"{raw[:end]}=1")))
        except tomli.TOMLDecodeError:
            continue
    raise AssertionError(f"no key at {raw!r}")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a=", "}")])
def test_deep_nesting_is_passed_over(opening: str, closing: str) -> None:
    text = f"x = {opening * 300}'] # }}'{closing * 300}\ny = 1"
    found = places(text)
    assert max(len(path) for path in found) == DEPTH
    assert line_column(text, found["y",].key) == (2, 1)


def test_long_dotted_keys_are_passed_over() -> None:
    text = f"{'.'.join('a' * 200)} = 1\n[{'.'.join('b' * 200)}]\nc = 1\n[y]"
    found = places(text)
    assert max(len(path) for path in found) == DEPTH
    assert line_column(text, found["y",].key) == (4, 2)


def test_a_header_is_a_better_place_than_a_mention() -> None:
    text = "[a.b.c]\nx = 1\n[a.b]\n"
    assert line_column(text, places(text)["a", "b"].key) == (3, 4)
