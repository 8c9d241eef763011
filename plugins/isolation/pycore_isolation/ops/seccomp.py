"""Loading a system-call filter, and keeping the compiled program for the next time."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class KeepFilter(Operation):
    """Put a compiled filter where the next process that needs it finds it; it is shared and never undone."""

    step = Step.FILES
    path: str
    program: bytes

    def do(self, ctx: Context) -> None:
        if not ctx.kernel.exists(self.path):
            ctx.kernel.mkdir(os.path.dirname(self.path), 0o700)
            ctx.kernel.replace(self.path, self.program)

    def explain(self) -> str:
        return f"keep the compiled system-call filter as {self.path}"


@dataclass(frozen=True)
class Filter(Operation):
    """Load a system-call filter (seccomp(2)); it can only be narrowed afterwards, also by execve(2)."""

    step = Step.FILTER
    name: str
    program: bytes
    """An array of struct sock_filter."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.load_filter(self.program)

    def explain(self) -> str:
        digest = hashlib.sha256(self.program).hexdigest()[:12]
        return f"system-call filter {self.name}: {len(self.program) // 8} instructions, sha256:{digest}"


@dataclass(frozen=True)
class EarlyFilter(Filter):
    """The same while powers are still there: without no_new_privs loading a filter needs CAP_SYS_ADMIN."""

    step = Step.FILTER_EARLY
