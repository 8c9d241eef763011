"""Resource limits of a container's process: ``ulimits``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import pydantic
from pycore.hookspecs import Host, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Change, Container, Section, setting

from pycore_isolation.ops.capabilities import mask
from pycore_isolation.ops.limits import UNLIMITED, ResourceLimit

Resource = Literal[
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
    "sigpending", "stack",
]  # fmt: skip
"""The resources of :mod:`pycore_isolation.ops.limits`, where a type checker and an editor see them."""

Value = Annotated[int, pydantic.Field(ge=UNLIMITED, lt=1 << 63)]


class Ulimit(pydantic.BaseModel):
    """A limit whose two values differ: the program may raise the soft one up to the hard one."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    soft: Value
    hard: Value

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Ulimit:
        if _order(self.soft) > _order(self.hard):
            raise ValueError("soft must not be above hard")
        return self


class Limits(Section):
    """``ulimits``."""

    table = "container.*.resources"

    ulimits: dict[Resource, Value | Ulimit] = setting(
        {},
        doc="Limits of the process (setrlimit(2)): one number for both limits, or { soft = ..., hard = ... }; -1 is "
        "no limit. What is not named is inherited. Without CAP_SYS_RESOURCE, pycore's own limits are the highest.",
        change=Change.RESTART,
        example={"nofile": 1024},
        flags=("--ulimit",),
    )


def _order(value: int) -> float:
    return float("inf") if value == UNLIMITED else value


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """``ulimits``."""
    return [Limits]


@hookimpl
def pycore_confine(container: Container, host: Host) -> Iterator[Operation]:
    """Set each limit, as far up as this process may go."""
    ulimits = container[Limits].ulimits
    ceilings = _ceilings(host.look) if ulimits else {}
    for name, limit in sorted(ulimits.items()):
        soft, hard = (limit, limit) if isinstance(limit, int) else (limit.soft, limit.hard)
        ceiling = ceilings.get(name, UNLIMITED)
        yield ResourceLimit(name, min(soft, ceiling, key=_order), min(hard, ceiling, key=_order))


_ROWS = {
    "as": "Max address space", "core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size",
    "fsize": "Max file size", "memlock": "Max locked memory", "msgqueue": "Max msgqueue size",
    "nice": "Max nice priority", "nofile": "Max open files", "nproc": "Max processes", "rss": "Max resident set",
    "rtprio": "Max realtime priority", "rttime": "Max realtime timeout", "sigpending": "Max pending signals",
    "stack": "Max stack size",
}  # fmt: skip
"""The names of proc(5), /proc/PID/limits."""


def _ceilings(look: Look) -> dict[str, int]:
    """The hard limits that cannot be raised: none for a caller with CAP_SYS_RESOURCE (setrlimit(2))."""
    if look.capabilities() & mask(["SYS_RESOURCE"]):
        return {}
    rows = {line[:25].strip(): line[25:].split() for line in look.read("/proc/self/limits").splitlines()}
    return {name: int(rows[row][1]) for name, row in _ROWS.items() if row in rows and rows[row][1] != "unlimited"}
