"""What the plugins of this area share: times that something is repeated after, and tables with their names."""

from __future__ import annotations

from typing import Annotated, TypeVar

import pydantic
from pycore.spec import App, Duration, Section, parse_duration

LEAST = 0.01
"""Seconds. What is repeated sooner keeps a processor busy with nothing but that."""


def _long_enough(value: str) -> str:
    if parse_duration(value) < LEAST:
        raise ValueError("must be 10ms or more")
    return value


LongEnough = Annotated[Duration, pydantic.AfterValidator(_long_enough)]
"""A time of at least 10 ms."""

S = TypeVar("S", bound=Section)


def tables_of(app: App, kind: type[S]) -> dict[str, S]:
    """The sections of a kind by the names of their ``[container.NAME]`` tables; replicas share one."""
    return {each.service or each.name: each[kind] for each in app.containers.values() if kind in each}
