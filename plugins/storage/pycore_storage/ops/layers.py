"""The root as an overlay: a writable layer of the container's own over layers that nobody writes to."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from pycore.linux import libc
from pycore.linux.kernel import Kernel
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class Layer(Operation):
    """Make the directories that overlayfs writes to; removed with the container.

    ``hidden`` are paths below ``lower`` that the container is not to see.
    """

    step = Step.LAYER
    path: str
    lower: str
    hidden: tuple[str, ...] = ()

    def do(self, ctx: Context) -> None:
        _make_layer(ctx.kernel, self.path, self.lower, self.hidden, ctx.root_id)

    def undo(self, ctx: Context) -> None:
        ctx.kernel.rmtree(self.path)

    def explain(self) -> str:
        hidden = f", hiding {', '.join(self.hidden)}" if self.hidden else ""
        return f"make the writable layer {self.path}{hidden}"


@dataclass(frozen=True)
class MemoryLayer(Operation):
    """Where the disk cannot hold such a layer, let it be in memory: a tmpfs that only this container has.

    It is charged to the container's cgroup, and ends with its process.
    """

    step = Step.ROOT
    path: str
    lower: str
    hidden: tuple[str, ...] = ()

    def do(self, ctx: Context) -> None:
        tree = ctx.kernel.mount_new("tmpfs", {"mode": "755"}, libc.MOUNT_ATTR_NODEV)
        place, ctx.held[self.path] = ctx.held[self.path], tree
        ctx.kernel.mount_over(tree, place)
        os.close(place)
        _make_layer(ctx.kernel, _held(ctx, self.path), self.lower, self.hidden, 0)

    def explain(self) -> str:
        return f"mount tmpfs over {self.path}: the writable layer is in memory, and ends with the process"


@dataclass(frozen=True)
class OverlayRoot(InsideOperation):
    """Mount the overlay that becomes the root. ``lower`` has the uppermost layer first.

    Layers are named by descriptors: so no character of a path means anything to overlayfs, the 255 bytes
    that fsconfig(2) takes suffice for a dozen layers, a user namespace needs no way to them, and the
    container's own mountinfo tells nothing of the host's directories.
    """

    step = Step.ROOT
    lower: tuple[str, ...]
    layer: str

    def hold(self, ctx: Context) -> None:
        for path in (*self.lower, self.layer):
            ctx.held[path] = ctx.kernel.open_path(path)

    def do(self, ctx: Context) -> None:
        """Device nodes in a layer stay without effect; ``index`` off, as a lower layer may have changed meanwhile."""
        layer = _held(ctx, self.layer)
        options: dict[str, str | None] = {
            "source": "overlay",
            "lowerdir": ":".join(_held(ctx, path) for path in self.lower),
            "upperdir": f"{layer}/upper",
            "workdir": f"{layer}/work",
            "index": "off",
        }
        if _in_user_namespace(ctx.kernel):
            options["userxattr"] = None  # only the host's root may write trusted.* attributes (overlayfs.rst)
        ctx.root = ctx.kernel.mount_new("overlay", options, libc.MOUNT_ATTR_NODEV)
        for path in (*self.lower, self.layer):
            os.close(ctx.held.pop(path))

    def explain(self) -> str:
        return (
            f"mount overlay on / (lower={':'.join(self.lower)}, upper={self.layer}/upper, "
            f"work={self.layer}/work, nodev)"
        )


@dataclass(frozen=True)
class HostPart(InsideOperation):
    """Show a file system that the host has mounted below its root, which an overlay of the root does not cover.

    It is read-only, and comes before volumes and files of other plugins so that they can be on top of it.
    """

    step = Step.KERNEL_FS
    path: str

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.path)

    def do(self, ctx: Context) -> None:
        tree = ctx.held.pop(self)
        ctx.kernel.mount_attributes(tree, libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NODEV)
        ctx.kernel.mount_place(tree, self.path)

    def explain(self) -> str:
        return f"bind {self.path} of the host, read-only"


def _make_layer(kernel: Kernel, path: str, lower: str, hidden: tuple[str, ...], owner: int) -> None:
    """Make ``upper`` and ``work`` below ``path``, whose owner must be root to who mounts the overlay.

    Nobody else gets through ``path``: a container may leave setuid programs in its layer.
    """
    for directory, mode in ((path, 0o700), (f"{path}/upper", 0o755), (f"{path}/work", 0o700)):
        kernel.mkdir(directory, mode)
        if owner:
            kernel.chown(directory, owner, owner)
    for inside in hidden:
        _hide(kernel, f"{path}/upper", lower.rstrip("/"), inside)


def _hide(kernel: Kernel, upper: str, lower: str, path: str) -> None:
    """A whiteout, as if the container had removed it; the directories above it stay as they are below."""
    above, _, _ = path.rpartition("/")
    place = ""
    for name in above.split("/")[1:]:
        place = f"{place}/{name}"
        kernel.mkdir_like(f"{upper}{place}", f"{lower}{place}")
    kernel.whiteout(f"{upper}{path}")


def _held(ctx: Context, path: str) -> str:
    return f"/proc/self/fd/{ctx.held[path]}"


def _in_user_namespace(kernel: Kernel) -> bool:
    """Whether root here is not the host's: what 0 is mapped to (user_namespaces(7)), if the kernel has maps at all."""
    with contextlib.suppress(FileNotFoundError):
        return kernel.read("/proc/self/uid_map").split()[1:2] != ["0"]
    return False
