"""Tables that say the same are read once, and only these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pycore.errors import SpecError
from pycore.plugins import load_plugins
from pycore.source import alike
from pycore.source.load import load_source
from pycore.spec import App, Process

PLUGINS = load_plugins()


def load(**containers: dict[str, Any]) -> App:
    source = {"container": {name: {"image": "host", **table} for name, table in containers.items()}}
    return load_source(source, directory=Path("/"), plugins=PLUGINS, name="shop")


def test_containers_that_say_the_same_share_their_sections() -> None:
    one, other = load(a={"resources": {"pids": 7}}), load(b={"resources": {"pids": 7}})
    a, b = one.containers["a"], other.containers["b"]
    assert [*a.sections] == [*b.sections]
    assert all(a[kind] is b[kind] for kind in a.sections)
    assert a == load(a={"resources": {"pids": 7}}).containers["a"]


def test_what_differs_is_read() -> None:
    app = load(a={"command": ["true"]}, b={"command": ["false"]}, c={"command": ["true"], "tty": True})
    assert [each[Process].command for each in app.containers.values()] == [("true",), ("false",), ("true",)]
    assert [each[Process].tty for each in app.containers.values()] == [False, False, True]


def test_another_driver_is_another_table() -> None:
    app = load(a={"network": {"driver": "none"}}, b={"network": {}}, c={"network": {"driver": "bridge"}})
    none, usual, bridge = app.containers.values()
    assert [each.drivers["network"] for each in app.containers.values()] == ["none", "bridge", "bridge"]
    assert set(usual.sections) == set(bridge.sections) != set(none.sections)


@pytest.mark.parametrize(("right", "wrong"), [({"tty": True}, {"tty": 1}), ({"replicas": 1}, {"replicas": True})])
def test_values_that_are_equal_in_python_only_are_told_apart(right: dict[str, Any], wrong: dict[str, Any]) -> None:
    load(a=right)
    with pytest.raises(SpecError):
        load(a=wrong)


def test_what_is_wrong_is_said_every_time() -> None:
    for _ in range(3):
        with pytest.raises(SpecError) as caught:
            load(a={"no_such_key": 1}, b={"resources": {"pids": -1}})
        assert [problem.path[1:3] for problem in caught.value.problems] == [("a", "no_such_key"), ("b", "resources")]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    known = alike.Alike({})
    monkeypatch.setattr(alike, "_MOST", 10)
    for number in range(25):
        known.remember(("container.*", (), str(number)), {})
        assert known.made(("container.*", (), str(number))) == {}
    assert len(known._made) <= 10
    known.remember(("container.*", (), "x" * 5000), {})
    assert known.made(("container.*", (), "x" * 5000)) is None
