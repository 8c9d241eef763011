"""Resource limits of the process itself (setrlimit(2))."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

RESOURCES = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
"""Compose's words, which are the kernel's in small letters."""

UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True)
class ResourceLimit(Operation):
    """Set one resource limit; :data:`UNLIMITED` is -1, as in the kernel's own structure."""

    step = Step.RLIMIT
    resource: str
    soft: int
    hard: int

    def do(self, ctx: Context) -> None:
        ctx.kernel.set_rlimit(RESOURCES[self.resource], self.soft, self.hard)

    def explain(self) -> str:
        soft, hard = ("unlimited" if value == UNLIMITED else value for value in (self.soft, self.hard))
        return f"limit {self.resource}: soft {soft}, hard {hard}"
