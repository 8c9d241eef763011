"""Restart policies: who is started again, and after how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import SpecError
from pycore.hookspecs import End
from pycore.plugins import load_plugins
from pycore.source.load import load_source
from pycore.spec import parse_duration
from pycore_supervision.restart import Backoff, Policy, Restart, delay, parse_policy, pycore_restart

MANY = 1_000_000


def end(status: int | None = 1, **about: Any) -> End:
    return End(status, **{"ran": 0.0, "restarts": 0, "delay": 0.0, "stopped": False} | about)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("no", Policy("no")),
        ("always", Policy("always")),
        ("unless-stopped", Policy("unless-stopped")),
        ("on-failure", Policy("on-failure")),
        ("on-failure:5", Policy("on-failure", 5)),
    ],
)
def test_policies(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy
    assert Restart(restart=text).restart == text


@pytest.mark.parametrize(
    "text",
    ["", "yes", "Always", "on-failure:", "on-failure:0", "on-failure:-1", "on-failure:x", "on-failure:٣",
     "on-failure:1:2", "always:3", "no:1", "on-failure:" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        Restart(restart=text)


@pytest.mark.parametrize(
    ("policy", "succeeded", "failed", "killed", "unknown"),
    [
        ("no", False, False, False, False),
        ("on-failure", False, True, True, True),
        ("always", True, True, True, True),
        ("unless-stopped", True, True, True, True),
    ],
)
def test_who_is_started_again(
    make: Any, policy: str, succeeded: bool, failed: bool, killed: bool, unknown: bool
) -> None:
    container = make(restart=policy)
    answers = [pycore_restart(container, end(status)) is not None for status in (0, 1, -9, None)]
    assert answers == [succeeded, failed, killed, unknown]


@pytest.mark.parametrize("policy", ["no", "on-failure", "always", "unless-stopped"])
def test_what_a_person_stopped_stays_down(make: Any, policy: str) -> None:
    container = make(restart=policy)
    assert pycore_restart(container, end(stopped=True)) is None
    assert pycore_restart(container, end(stopped=True, unhealthy=True)) is None


@pytest.mark.parametrize("policy", ["no", "on-failure:1", "always", "unless-stopped"])
def test_unhealthy_is_started_again_whatever_the_policy(make: Any, policy: str) -> None:
    assert pycore_restart(make(restart=policy), end(0, unhealthy=True, restarts=10)) is not None


def test_attempts_are_counted(make: Any) -> None:
    container = make(restart="on-failure:3")
    answers = [pycore_restart(container, end(restarts=count)) is not None for count in range(5)]
    assert answers == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("policy", "running", "stopped"),
    [("no", 0.0, None), ("on-failure:1", 0.0, None), ("unless-stopped", 0.0, None), ("always", 0.0, 0.0)],
)
def test_after_a_boot(make: Any, policy: str, running: float | None, stopped: float | None) -> None:
    container = make(restart=policy)
    assert pycore_restart(container, end(None, boot=True, restarts=9, delay=60.0)) == running
    assert pycore_restart(container, end(None, boot=True, stopped=True)) == stopped


def test_delays_grow_to_the_longest(make: Any) -> None:
    container, delays = make(restart="always", delay_min="100ms", delay_max="1s", factor=3), list[float]()
    last = 0.0
    for _ in range(5):
        last = pycore_restart(container, end(delay=last))
        delays.append(round(last, 3))
    assert delays == [0.1, 0.3, 0.9, 1, 1]


def test_program_that_ran_for_a_while_begins_anew(make: Any) -> None:
    container = make(restart="always", reset_after="10s")
    assert pycore_restart(container, end(delay=8.0, ran=9.9)) == 16
    assert pycore_restart(container, end(delay=8.0, ran=10.0)) == 0.1


DURATIONS = st.one_of(
    st.integers(10, 10**6).map(lambda number: f"{number}ms"),
    st.integers(1, 10**9).map(lambda number: f"{number}s"),
    st.integers(1, 200_000).map(lambda number: f"{number}h"),
)


@given(DURATIONS, DURATIONS, st.floats(1, 1000))
def test_delays_never_shrink_and_stay_in_their_bounds(one: str, other: str, factor: float) -> None:
    least, most = sorted((one, other), key=parse_duration)
    backoff = Backoff(delay_min=least, delay_max=most, factor=factor)
    last, bottom, top = 0.0, parse_duration(least), parse_duration(most)
    for _ in range(100):
        now = delay(backoff, end(delay=last, restarts=MANY))
        assert max(last, bottom) <= now <= top
        last = now


@given(st.floats(0, 1e308), st.integers(0, 10**9))
def test_nothing_overflows(last: float, restarts: int) -> None:
    """A record may say anything."""
    assert 0.1 <= delay(Backoff(factor=1000), end(delay=last, restarts=restarts)) <= 60


def test_a_million_restarts() -> None:
    """The last delay is all that the next one is made of, so that no number can grow out of bounds."""
    backoff = Backoff(factor=1000)
    assert delay(backoff, end(delay=60.0, restarts=MANY)) == 60
    assert delay(backoff, end(delay=60.0, restarts=MANY, ran=10.0)) == 0.1


@pytest.mark.parametrize(
    "fields", [{"delay_min": "0s"}, {"delay_max": "9ms"}, {"factor": 0.5}, {"factor": 1001}, {"reset_after": "10"}]
)
def test_what_is_no_backoff(fields: dict[str, Any]) -> None:
    """A delay of nothing would be a loop that takes a whole processor."""
    with pytest.raises(pydantic.ValidationError):
        Backoff(**fields)


@pytest.mark.parametrize(
    ("backoff", "key"),
    [
        ({"delay_min": "2m"}, "delay_min"),
        ({"delay_max": "50ms"}, "delay_max"),
        ({"delay_min": "2s", "delay_max": "1s"}, "delay_min"),
    ],
)
def test_delays_that_contradict_each_other(backoff: dict[str, str], key: str) -> None:
    source = {"name": "shop", "container": {"web": {"image": "host", "replicas": 3, "backoff": backoff}}}
    with pytest.raises(SpecError) as caught:
        load_source(source, directory=Path("/"), plugins=load_plugins())
    [problem] = caught.value.problems
    assert problem.path == ("container", "web", "backoff", key)
    assert "is longer than delay_max" in problem.message
