"""What the driver does, inside the new mount namespace."""

from __future__ import annotations

from dataclasses import dataclass

from pycore import Context, InsideOperation, Step
from pycore.linux.libc import MOUNT_ATTR_RDONLY


@dataclass(frozen=True)
class DirectRoot(InsideOperation):
    """Make a directory of the host the root, read-only; what is mounted below it stays out."""

    step = Step.ROOT
    directory: str

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.directory, recursive=False)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)
        ctx.kernel.mount_attributes(ctx.root, MOUNT_ATTR_RDONLY)

    def explain(self) -> str:
        return f"mount {self.directory} read-only as the root"
