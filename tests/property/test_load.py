"""Whatever is put into load, an App comes out, or problems that each have a place in the file."""

from __future__ import annotations

import json
from pathlib import Path

import tomli
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import SpecError
from pycore.plugins import load_plugins
from pycore.source.load import load_source, load_text
from pycore.source.render import render
from pycore.source.runflags import to_toml
from pycore.spec import App
from pycore.testing.strategies import DIRECTORY, Source, apps, specs

PLUGINS = load_plugins()
ENVIRONMENT = {"HOME": "/root", "EMPTY": ""}

SPECS = specs(PLUGINS)

WORDS = st.sampled_from(
    ["name", "container", "network", "web", "image", "command", "environment", "driver", "bridge", "ports", "isolation",
     "user", "resources", "memory", "storage", "volumes", "volume", "${HOME}", "${NONE}", "a b", "", "é", "host", "\0"]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(
        WORDS, st.integers(), st.floats(), st.booleans(), st.text(max_size=5), st.dates(), st.datetimes(), st.times()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=20,
)


def check(text: str | bytes) -> None:
    """Load, and see that every problem stands in the text."""
    try:
        load_text(text, file="app.toml", directory=Path("/d"), plugins=PLUGINS, environment=ENVIRONMENT)
    except SpecError as error:
        refused = error
    else:
        return
    decoded = text if isinstance(text, str) else text.decode(errors="replace")
    lines = decoded.removeprefix("\N{BYTE ORDER MARK}").split("\n")
    assert refused.problems
    for problem in refused.problems:
        assert problem.file == "app.toml"
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert problem.message.strip()
    assert render(refused.problems)
    assert json.loads(json.dumps(refused.to_json()))


@given(st.text())
def test_any_text(text: str) -> None:
    check(text)


@given(st.binary())
def test_any_bytes(text: bytes) -> None:
    check(text)


@given(
    st.lists(
        st.sampled_from(
            ["[", "]", "{", "}", "=", ".", ",", '"', "'", "\n", "\r\n", " ", "a", "1", "#", '"""', "${", "$", "\\u0041"]
        )
    )
)
def test_anything_that_looks_like_toml(parts: list[str]) -> None:
    check("".join(parts))


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_any_toml(source: Source) -> None:
    text = written(source)
    assert isinstance(tomli.loads(text), dict)
    check(text)


@given(st.data())
def test_a_spec_with_one_thing_wrong(data: st.DataObject) -> None:
    """Close to a spec: this reaches further than what is wrong from the first line."""
    source = data.draw(SPECS)
    place = data.draw(st.sampled_from(tables_in(source)))
    place[data.draw(st.one_of(st.sampled_from(sorted(place)) if place else WORDS, WORDS))] = data.draw(VALUES)
    check(written(source))


@given(SPECS)
def test_a_spec_is_the_same_from_a_file_and_from_its_source(source: Source) -> None:
    app = load_source(source, directory=DIRECTORY, plugins=PLUGINS)
    text = to_toml(source)
    assert load_text(text, file="a.toml", directory=DIRECTORY, plugins=PLUGINS, environment={}) == app
    kept = json.loads(json.dumps(app.source))
    assert load_source(kept, directory=DIRECTORY, plugins=PLUGINS) == app


@given(apps(PLUGINS))
def test_strategies_give_apps(app: App) -> None:
    assert app.containers


def tables_in(value: object) -> list[Source]:
    if not isinstance(value, dict):
        return []
    return [value, *(table for each in value.values() for table in tables_in(each))]


def written(source: Source) -> str:
    """As TOML, everything inline; JSON knows neither dates nor infinities as TOML writes them."""
    return "\n".join(f"{json.dumps(key)} = {_value(value)}" for key, value in source.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
