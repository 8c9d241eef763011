"""Loading a system-call filter, and keeping the compiled program for the next time."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from pycore.linux.look import Look
from pycore.ops import Context, Operation
from pycore.steps import Step


def read_kept(look: Look, path: str) -> bytes | None:
    """The program that :class:`KeepFilter` left there, or None; also where the file is not whole."""
    try:
        content = look.read_bytes(path)
    except OSError:
        return None
    digest, program = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    return program if digest == _digest(program) else None


def _digest(program: bytes) -> bytes:
    return hashlib.sha256(program).digest()


_DIGEST_SIZE = 32


@dataclass(frozen=True)
class KeepFilter(Operation):
    """Put a compiled filter where the next process that needs it finds it; it is shared and never undone."""

    step = Step.FILES
    path: str
    program: bytes

    def do(self, ctx: Context) -> None:
        if read_kept(ctx.kernel, self.path) != self.program:
            ctx.kernel.mkdir(os.path.dirname(self.path), 0o700)
            ctx.kernel.replace(self.path, _digest(self.program) + self.program)

    def probe(self, ctx: Context) -> bool | None:
        return read_kept(ctx.kernel, self.path) == self.program

    def explain(self) -> str:
        return f"keep the compiled system-call filter as {self.path}"


@dataclass(frozen=True)
class Filter(Operation):
    """Load a system-call filter (seccomp(2)); it can only be narrowed afterwards, also by execve(2)."""

    step = Step.FILTER
    name: str
    allowed: int
    """How many calls it allows, for people."""
    program: bytes
    """An array of struct sock_filter."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.load_filter(self.program)

    def explain(self) -> str:
        digest = _digest(self.program).hex()[:12]
        return f"system-call filter {self.name}: {self.allowed} calls allowed, sha256:{digest}"


@dataclass(frozen=True)
class EarlyFilter(Filter):
    """The same while powers are still there: without no_new_privs loading a filter needs CAP_SYS_ADMIN."""

    step = Step.FILTER_EARLY
