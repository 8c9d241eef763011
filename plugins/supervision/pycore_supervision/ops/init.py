"""A real init as a container's first process."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, InsideOperation
from pycore.steps import Step

_ATTRIBUTES = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV

ARGV = ("dumb-init", "--")


@dataclass(frozen=True)
class Init(InsideOperation):
    """Have the program run by an init that hands signals on and reaps what is left behind.

    The init's file is the host's. It is executed through a read-only mount of its own that is in no place, so that
    no path in the container leads to it and /proc/1/exe cannot be written to (as in CVE-2019-5736).
    """

    step = Step.MOUNT
    program: str
    """A static executable of the host."""

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.program, recursive=False)

    def do(self, ctx: Context) -> None:
        tree = ctx.held.pop(self)
        ctx.kernel.mount_attributes(tree, _ATTRIBUTES, recursive=False)
        ctx.init = (tree, ARGV)

    def explain(self) -> str:
        return f"run the program by {self.program} (read-only, nosuid, in no place)"
