"""The kernel's file systems inside: /proc, /sys and /dev, and what of them is hidden or read-only."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step

NOSUID, NOEXEC, NODEV, READ_ONLY = (
    libc.MOUNT_ATTR_NOSUID, libc.MOUNT_ATTR_NOEXEC, libc.MOUNT_ATTR_NODEV, libc.MOUNT_ATTR_RDONLY
)  # fmt: skip
_WORDS = {READ_ONLY: "ro", NOSUID: "nosuid", NODEV: "nodev", NOEXEC: "noexec"}

_LIKE_THE_HOSTS = ("proc", "sysfs")
"""In a user namespace the kernel mounts these only where a full view of them is in sight
(mount_too_revealing() in fs/namespace.c): the host's, before the root changes."""


def _attributes(attributes: int) -> str:
    return ",".join(word for flag, word in _WORDS.items() if attributes & flag)


@dataclass(frozen=True)
class Mount(InsideOperation):
    """A new file system at a place inside."""

    step = Step.KERNEL_FS
    fstype: str
    target: str
    attributes: int
    options: tuple[tuple[str, str | None], ...] = ()

    def hold(self, ctx: Context) -> None:
        if self.fstype in _LIKE_THE_HOSTS:
            ctx.held[self] = self._new(ctx)

    def do(self, ctx: Context) -> None:
        tree = ctx.held.pop(self, None)
        ctx.kernel.mount_place(self._new(ctx) if tree is None else tree, self.target)

    def _new(self, ctx: Context) -> int:
        return ctx.kernel.mount_new(self.fstype, dict(self.options), self.attributes)

    def explain(self) -> str:
        options = "".join(f",{key}" if value is None else f",{key}={value}" for key, value in self.options)
        return f"mount {self.fstype} on {self.target} ({_attributes(self.attributes)}{options})"


@dataclass(frozen=True)
class HostTree(InsideOperation):
    """A directory of the host with all that is mounted in it, bound in, where a file system of its own cannot be."""

    step = Step.KERNEL_FS
    path: str
    attributes: int

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.path)

    def do(self, ctx: Context) -> None:
        tree = ctx.held.pop(self)
        ctx.kernel.mount_attributes(tree, self.attributes)
        ctx.kernel.mount_place(tree, self.path)

    def explain(self) -> str:
        return f"bind {self.path} of the host ({_attributes(self.attributes)})"


@dataclass(frozen=True)
class Device(InsideOperation):
    """A device of the host, bound in: so /dev itself can be nodev, and a device made inside never works.

    It is the host's own inode: read-only, so that root inside cannot change its mode or owner. Data goes
    through all the same, for a device is not a part of its file system (inode_permission() in fs/namei.c).
    """

    step = Step.KERNEL_FS
    path: str

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.path, recursive=False)

    def do(self, ctx: Context) -> None:
        tree = ctx.held.pop(self)
        ctx.kernel.mount_attributes(tree, READ_ONLY | NOSUID | NOEXEC)
        ctx.kernel.mount_place(tree, self.path, directory=False)

    def explain(self) -> str:
        return f"bind {self.path} of the host"


@dataclass(frozen=True)
class Links(Operation):
    """Symbolic links in /dev."""

    step = Step.KERNEL_FS
    links: tuple[tuple[str, str], ...]
    """(path, what it says)."""

    def do(self, ctx: Context) -> None:
        for path, text in self.links:
            ctx.kernel.make_link(text, path)

    def explain(self) -> str:
        return f"link {', '.join(f'{path} -> {text}' for path, text in self.links)}"


@dataclass(frozen=True)
class Mask(Operation):
    """Hide paths: a file behind /dev/null, a directory behind an empty read-only tmpfs, one for all."""

    step = Step.CONCEAL
    files: tuple[str, ...]
    directories: tuple[str, ...]

    def do(self, ctx: Context) -> None:
        for path in self.files:
            ctx.kernel.mount_place(ctx.kernel.mount_clone("/dev/null", recursive=False), path, directory=False)
        for path in self.directories[:1]:
            attributes = READ_ONLY | NOSUID | NOEXEC | NODEV
            ctx.kernel.mount_place(ctx.kernel.mount_new("tmpfs", {}, attributes), path)
        for path in self.directories[1:]:
            ctx.kernel.mount_place(ctx.kernel.mount_clone(self.directories[0], recursive=False), path)

    def explain(self) -> str:
        return f"mask {', '.join(self.files + self.directories)}"


@dataclass(frozen=True)
class ReadOnly(Operation):
    """Make paths read-only, with all that is mounted below them."""

    step = Step.CONCEAL
    paths: tuple[str, ...]

    def do(self, ctx: Context) -> None:
        for path in self.paths:
            tree = ctx.kernel.mount_clone(path)
            ctx.kernel.mount_attributes(tree, READ_ONLY | NOSUID | NOEXEC | NODEV)
            ctx.kernel.mount_place(tree, path)

    def explain(self) -> str:
        return f"read-only: {', '.join(self.paths)}"
