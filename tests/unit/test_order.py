from __future__ import annotations

import threading
from functools import partial

import pytest
from pycore.order import at_once, in_order, levels


@pytest.mark.parametrize("number", [1, 4])
def test_each_act_is_called_when_it_is_ready(number: int) -> None:
    done: list[str] = []
    changed = threading.Condition()
    needs = {"web": {"db"}, "db": set[str](), "cache": {"db"}, "page": {"web", "cache"}}

    def act(name: str) -> None:
        done.append(name)
        with changed:
            changed.notify_all()

    acts = {name: partial(act, name) for name in needs}
    in_order(acts, lambda name: needs[name] <= set(done), changed, number)
    assert sorted(done) == sorted(needs)
    assert done[0] == "db"
    assert done[-1] == "page"


@pytest.mark.parametrize("number", [1, 4])
def test_after_a_failure_nothing_is_begun(number: int) -> None:
    done: list[str] = []

    def fail() -> None:
        raise ValueError("no")

    acts = {"first": fail, "second": partial(done.append, "second")}
    failed = threading.Event()

    def ready(name: str) -> bool:
        return name == "first" or failed.is_set()

    with pytest.raises(ValueError, match="no"):
        in_order(acts, ready, threading.Condition(), number)
    assert done == []


def test_what_can_never_be_ready_raises() -> None:
    def ready(name: str) -> bool:
        raise ValueError("its database has ended")

    with pytest.raises(ValueError, match="database"):
        in_order({"web": lambda: None}, ready, threading.Condition(), 4)


def test_what_was_begun_has_ended_when_a_failure_is_raised() -> None:
    ended = threading.Event()
    started = threading.Event()

    def slow() -> None:
        started.wait(10)
        ended.set()

    def fail() -> None:
        started.set()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        at_once([slow, fail], 4)
    assert ended.is_set()


def test_levels() -> None:
    needs = {"web": ["db"], "page": ["web", "elsewhere"]}
    assert levels(["page", "web", "db", "job"], needs) == [["db", "job"], ["web"], ["page"]]


def test_levels_of_a_circle_end() -> None:
    assert levels(["a", "b", "c"], {"a": ["b"], "b": ["a"]}) == [["c"], ["a", "b"]]
