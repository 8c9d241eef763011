"""A root that is a plain directory, and what makes any root read-only."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step

from pycore_storage.ops.layers import remove


@dataclass(frozen=True)
class Copy(Operation):
    """Copy an image's layers, the uppermost first, to ``path/root``, which is the container's own; removed with it.

    Files belong to the same ids inside as in the image. Only the host's root gets through ``path``, for setuid
    bits are copied too; it belongs to who is root inside.
    """

    step = Step.LAYER
    layers: tuple[str, ...]
    path: str

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.path, 0o700)
        if not ctx.kernel.is_dir(f"{self.path}/root"):
            ctx.kernel.copy_layers(self.layers, f"{self.path}/root", ctx.root_id)
        if ctx.root_id:
            ctx.kernel.chown(self.path, ctx.root_id, ctx.root_id)

    def undo(self, ctx: Context) -> None:
        remove(ctx.kernel, self.path)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(f"{self.path}/root")

    def explain(self) -> str:
        return f"copy {', '.join(reversed(self.layers))} to {self.path}/root"


@dataclass(frozen=True)
class DirectoryRoot(InsideOperation):
    """Let a directory of the host be the root; device nodes in it stay without effect."""

    step = Step.ROOT
    outside = True
    path: str

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = tree = ctx.kernel.mount_clone(self.path, recursive=False)
        ctx.kernel.mount_attributes(tree, libc.MOUNT_ATTR_NODEV, recursive=False)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)

    def explain(self) -> str:
        return f"bind {self.path} on / (nodev)"


@dataclass(frozen=True)
class ReadOnlyRoot(Operation):
    """Make the root read-only, once all that had to be put into it is there; mounts below it are not touched."""

    step = Step.CONCEAL

    def do(self, ctx: Context) -> None:
        root = ctx.kernel.make_place("/")
        try:
            ctx.kernel.mount_attributes(root, libc.MOUNT_ATTR_RDONLY, recursive=False)
        finally:
            os.close(root)

    def explain(self) -> str:
        return "make / read-only"
