"""A root that is a plain directory, and what makes any root read-only."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class Copy(Operation):
    """Copy an image, a directory or a tar file, to ``path/root``, which is the container's own; removed with it.

    Files belong to the same ids inside as in the image. Only the host's root gets through ``path``, for setuid
    bits are copied too.
    """

    step = Step.LAYER
    source: str
    path: str
    archive: bool = False

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.path, 0o700)
        copy = ctx.kernel.unpack_tar if self.archive else ctx.kernel.copy_tree
        copy(self.source, f"{self.path}/root", ctx.root_id)

    def undo(self, ctx: Context) -> None:
        ctx.kernel.rmtree(self.path)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(f"{self.path}/root")

    def explain(self) -> str:
        return f"{'unpack' if self.archive else 'copy'} {self.source} to {self.path}/root"


@dataclass(frozen=True)
class DirectoryRoot(InsideOperation):
    """Let a directory of the host be the root; device nodes in it stay without effect."""

    step = Step.ROOT
    path: str

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.path, recursive=False)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)
        ctx.kernel.mount_attributes(ctx.root, libc.MOUNT_ATTR_NODEV, recursive=False)

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
