"""Whether a container that has ended is started again, and after how long: ``restart`` and ``backoff``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import End, hookimpl
from pycore.spec import App, Change, Container, Duration, Section, Text, looks, parse_duration, setting

from pycore_supervision.common import LongEnough, tables_of

_ON_FAILURE = "on-failure"
_MOST_DIGITS = 9


class Policy(NamedTuple):
    """A restart policy, taken apart."""

    word: str
    attempts: int | None = None
    """How often it is started again at most; None: as often as it takes."""


def parse_policy(text: str) -> Policy:
    """The policy of ``"no"``, ``"always"``, ``"unless-stopped"``, ``"on-failure"``, ``"on-failure:5"``.

    Raises ValueError.
    """
    if text in ("no", "always", "unless-stopped", _ON_FAILURE):
        return Policy(text)
    word, colon, count = text.partition(":")
    if word != _ON_FAILURE:
        raise ValueError('must be "no", "always", "unless-stopped", "on-failure" or "on-failure:ATTEMPTS"')
    if not (colon and count.isascii() and count.isdigit() and len(count) <= _MOST_DIGITS and int(count) > 0):
        raise ValueError('the number of attempts must be 1 or more, as in "on-failure:5"')
    return Policy(_ON_FAILURE, int(count))


def _policy(text: str) -> str:
    parse_policy(text)
    return text


PolicyText = Annotated[
    Text,
    pydantic.AfterValidator(_policy),
    looks("restart policy", r"no|always|unless-stopped|on-failure(:[1-9][0-9]{0,8})?"),
]


class Restart(Section):
    """``restart``."""

    table = "container.*"

    restart: PolicyText = setting(
        "no",
        doc="When a container whose program has ended is started again: `no`, `always`, `on-failure` (a status other "
        "than 0; `on-failure:5` five times at most) or `unless-stopped`. What a person has stopped stays down; when "
        "the host has started anew, all containers come back but those, and of those the ones with `always`.",
        change=Change.LIVE,
        example="on-failure:5",
        flags=("--restart",),
    )


class Backoff(Section):
    """``[container.NAME.backoff]``: how long a restart waits."""

    table = "container.*.backoff"

    delay_min: LongEnough = setting("100ms", doc="How long the first restart waits.", change=Change.LIVE)
    delay_max: LongEnough = setting("1m", doc="How long a restart waits at most.", change=Change.LIVE)
    factor: Annotated[float, pydantic.Field(ge=1, le=1000)] = setting(
        2.0, doc="How much longer each restart waits than the one before.", change=Change.LIVE
    )
    reset_after: Duration = setting(
        "10s", doc="A program that ran for so long is well again: the next restart waits as the first.",
        change=Change.LIVE,
    )  # fmt: skip


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """The policy and its delays."""
    return [Restart, Backoff]


@hookimpl
def pycore_validate(app: App) -> Iterator[Problem]:
    """Delays that contradict each other."""
    for table, backoff in tables_of(app, Backoff).items():
        if parse_duration(backoff.delay_min) > parse_duration(backoff.delay_max):
            key = "delay_min" if "delay_min" in backoff.model_fields_set else "delay_max"
            message = f"delay_min ({backoff.delay_min}) is longer than delay_max ({backoff.delay_max})"
            yield Problem(("container", table, "backoff", key), message)


@hookimpl
def pycore_restart(container: Container, end: End) -> float | None:
    """Seconds until it is started again; None leaves it."""
    policy = parse_policy(container[Restart].restart)
    if end.boot:
        return None if end.stopped and policy.word != "always" else 0.0
    if end.stopped or not (end.unhealthy or _wanted(policy, end)):
        return None
    return delay(container[Backoff], end)


def _wanted(policy: Policy, end: End) -> bool:
    """Whether the policy wants it back. A status that nobody knows is a failure: it may well have been one."""
    if policy.word == _ON_FAILURE:
        return end.status != 0 and (policy.attempts is None or end.restarts < policy.attempts)
    return policy.word != "no"


def delay(backoff: Backoff, end: End) -> float:
    """Seconds that the restart waits: longer than the one before, unless the program ran for a while."""
    least, most = parse_duration(backoff.delay_min), parse_duration(backoff.delay_max)
    if end.delay <= 0 or end.ran >= parse_duration(backoff.reset_after):
        return least
    return min(most, max(least, end.delay * backoff.factor))
