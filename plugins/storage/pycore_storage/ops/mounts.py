"""What a container has besides its root: volumes, directories of the host, memory."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step

_PLAIN = libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV


@dataclass(frozen=True)
class Volume(Operation):
    """Make a named volume, unless it is there. Nothing takes it back: data is never removed with a container."""

    step = Step.VOLUME
    path: str
    store: str
    """The directory of all volumes, closed to other users."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.store, 0o700)
        if not ctx.kernel.is_dir(self.path):
            ctx.kernel.mkdir(self.path)
            if ctx.root_id:
                ctx.kernel.chown(self.path, ctx.root_id, ctx.root_id)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(self.path)

    def explain(self) -> str:
        return f"make the volume {self.path}, unless it is there"


@dataclass(frozen=True)
class Bind(InsideOperation):
    """Put a directory or a file of the host in a place inside, with what is mounted below it if ``recursive``."""

    step = Step.MOUNT
    source: str
    target: str
    read_only: bool = False
    directory: bool = True
    recursive: bool = True

    def depth(self) -> int:
        return self.target.count("/")

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.source, self.recursive)

    def do(self, ctx: Context) -> None:
        tree = ctx.held.pop(self)
        attributes = _PLAIN | (libc.MOUNT_ATTR_RDONLY if self.read_only else 0)
        ctx.kernel.mount_attributes(tree, attributes, self.recursive)
        ctx.kernel.mount_place(tree, self.target, self.directory)

    def explain(self) -> str:
        return f"bind {self.source} on {self.target} (nosuid,nodev{',ro' if self.read_only else ''})"


@dataclass(frozen=True)
class Tmpfs(Operation):
    """Mount memory. ``size`` is in bytes; 0 leaves it to the kernel: half of the memory (tmpfs(5))."""

    step = Step.MOUNT
    target: str
    size: int = 0
    mode: int = 0o1777
    executable: bool = False

    def depth(self) -> int:
        return self.target.count("/")

    def do(self, ctx: Context) -> None:
        options: dict[str, str | None] = {"mode": f"{self.mode:o}"}
        if self.size:
            options["size"] = str(self.size)
        attributes = _PLAIN | (0 if self.executable else libc.MOUNT_ATTR_NOEXEC)
        ctx.kernel.mount_place(ctx.kernel.mount_new("tmpfs", options, attributes), self.target)

    def explain(self) -> str:
        size = f",size={self.size}" if self.size else ""
        noexec = "" if self.executable else ",noexec"
        return f"mount tmpfs on {self.target} (nosuid,nodev{noexec},mode={self.mode:o}{size})"
