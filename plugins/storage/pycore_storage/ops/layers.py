"""The root as an overlay: a writable layer of the container's own over layers that nobody writes to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
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

    def probe(self, ctx: Context) -> bool | None:
        return all(ctx.kernel.is_dir(f"{self.path}/{name}") for name in ("upper", "work"))

    def explain(self) -> str:
        hidden = f", hiding {', '.join(self.hidden)}" if self.hidden else ""
        return f"make the writable layer {self.path}{hidden}"


@dataclass(frozen=True)
class OverlayRoot(InsideOperation):
    """Mount the overlay that becomes the root. ``lower`` has the uppermost layer first.

    Layers are named by descriptors: so no character of a path means anything to overlayfs, the 255 bytes
    that fsconfig(2) takes suffice for a dozen layers, and the container's own mountinfo tells nothing of the
    host's directories. It is mounted by the host's root: in a user namespace the kernel refuses a lower layer
    that has mounts on it, as the host's root has (clone_private_mount() in fs/namespace.c).
    """

    step = Step.ROOT
    outside = True
    lower: tuple[str, ...]
    layer: str

    def hold(self, ctx: Context) -> None:
        with contextlib.ExitStack() as opened:
            layer = _named(opened, ctx.kernel.open_path(self.layer))
            lower = [_named(opened, ctx.kernel.open_path(path)) for path in self.lower]
            ctx.held[self] = _mount_overlay(ctx.kernel, lower, layer)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)

    def explain(self) -> str:
        return _overlay_words(self.lower, self.layer)


@dataclass(frozen=True)
class MemoryPlace(Operation):
    """Make the directory over which :class:`MemoryRoot` mounts its layer; it stays empty on the host."""

    step = Step.LAYER
    path: str

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.path, 0o700)

    def undo(self, ctx: Context) -> None:
        ctx.kernel.rmdir(self.path)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(self.path)

    def explain(self) -> str:
        return f"make {self.path}, the place of a writable layer in memory"


@dataclass(frozen=True)
class MemoryRoot(InsideOperation):
    """An overlay whose writable layer is in memory, where the disk cannot hold one.

    It is a tmpfs over ``layer``, in this mount namespace alone: charged to the container's cgroup, and gone
    with its process.
    """

    step = Step.ROOT
    lower: tuple[str, ...]
    layer: str
    hidden: tuple[str, ...] = ()

    def hold(self, ctx: Context) -> None:
        kernel = ctx.kernel
        with contextlib.ExitStack() as opened:
            lower = [_named(opened, kernel.open_path(path)) for path in self.lower]
            place = kernel.open_path(self.layer)
            opened.callback(os.close, place)
            memory = kernel.mount_new("tmpfs", {"mode": "755"}, libc.MOUNT_ATTR_NODEV)
            layer = _named(opened, memory)
            kernel.mount_over(memory, place)
            _make_layer(kernel, layer, self.lower[-1], self.hidden, 0)
            ctx.held[self] = _mount_overlay(kernel, lower, layer)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)

    def explain(self) -> str:
        return f"{_overlay_words(self.lower, self.layer)}; the writable layer is in memory, and ends with the process"


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
    if not kernel.exists(f"{upper}{path}"):
        kernel.whiteout(f"{upper}{path}")


def _mount_overlay(kernel: Kernel, lower: Sequence[str], layer: str) -> int:
    """Device nodes in it stay without effect; ``index`` is off, as a lower layer may have changed between starts."""
    options: dict[str, str | None] = {
        "source": "overlay",
        "lowerdir": ":".join(lower),
        "upperdir": f"{layer}/upper",
        "workdir": f"{layer}/work",
        "index": "off",
    }
    return kernel.mount_new("overlay", options, libc.MOUNT_ATTR_NODEV)


def _overlay_words(lower: Sequence[str], layer: str) -> str:
    return f"mount overlay on / (lower={':'.join(lower)}, upper={layer}/upper, work={layer}/work, nodev)"


def _named(opened: contextlib.ExitStack, fd: int) -> str:
    """A path for a descriptor, which is closed with the others."""
    opened.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"
