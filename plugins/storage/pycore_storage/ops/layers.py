"""The root as an overlay: a writable layer of the container's own over layers that nobody writes to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from pycore.errors import PycoreError
from pycore.linux import idmap, libc
from pycore.linux.kernel import Kernel
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step

_FOR_ALL = ("/tmp", "/var/tmp")
"""Where everybody may write, with the sticky bit."""
_BOOT = "/proc/sys/kernel/random/boot_id"


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
        remove(ctx.kernel, self.path)

    def probe(self, ctx: Context) -> bool | None:
        return all(ctx.kernel.is_dir(f"{self.path}/{name}") for name in ("upper", "work"))

    def explain(self) -> str:
        hidden = f", hiding {', '.join(self.hidden)}" if self.hidden else ""
        return f"make the writable layer {self.path}{hidden}"


@dataclass(frozen=True)
class Volatile(Operation):
    """Note in which boot of the host a layer is written that nobody forces to the disk; what an earlier boot has left
    may be torn, and goes.
    """

    step = Step.LAYER
    path: str

    def do(self, ctx: Context) -> None:
        boot, note = ctx.kernel.read(_BOOT), self._note
        if ctx.kernel.exists(note) and ctx.kernel.read(note) != boot:
            remove(ctx.kernel, self.path)
        ctx.kernel.mkdir(self.path, 0o700)
        ctx.kernel.replace(note, boot)

    def undo(self, ctx: Context) -> None:
        ctx.kernel.unlink(self._note)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.exists(self._note)

    def explain(self) -> str:
        return f"throw {self.path} away if an earlier boot of the host has left it"

    @property
    def _note(self) -> str:
        return f"{self.path}/boot"


@dataclass(frozen=True)
class Quota(Operation):
    """Let the container's own files take so many bytes on the disk."""

    step = Step.LAYER
    path: str
    size: int

    def do(self, ctx: Context) -> None:
        ctx.kernel.set_quota(self.path, self.size)

    def undo(self, ctx: Context) -> None:
        ctx.kernel.forget_quota(self.path)

    def explain(self) -> str:
        return f"limit {self.path} to {self.size} bytes"


@dataclass(frozen=True)
class OverlayRoot(InsideOperation):
    """Mount the overlay that becomes the root. ``lower`` has the uppermost layer first.

    It is mounted by the host's root: in a user namespace the kernel refuses a lower layer that has mounts on it, as
    the host's root has (clone_private_mount() in fs/namespace.c). With ``own`` the layers are the container's image,
    whose files belong inside to whom they belong in the image, in a user namespace too: then the layers are mounted
    once more with other owners, and their files stay as they are. The host's own files keep theirs.
    """

    step = Step.ROOT
    outside = True
    lower: tuple[str, ...]
    layer: str
    own: bool = False
    volatile: bool = False

    def hold(self, ctx: Context) -> None:
        kernel = ctx.kernel
        with contextlib.ExitStack() as opened:
            lower = _shown(ctx, opened, self.lower, self.own)
            layer = _opened(opened, kernel.open_path(self.layer))
            # What a volatile mount notes down: it would have to be thrown away. Whether it has, Volatile has decided.
            kernel.rmtree(f"{self.layer}/work/work/incompat")
            ctx.held[self] = kernel.mount_overlay(lower, layer, self.volatile)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)

    def explain(self) -> str:
        own = f"upper={self.layer}/upper, work={self.layer}/work"
        volatile = ", volatile" if self.volatile else ""
        return f"mount overlay on / (lower={':'.join(self.lower)}, {own}, nodev){volatile}"


@contextlib.contextmanager
def in_words(ctx: Context, path: str) -> Generator[None, None, None]:
    """What cannot be shown as somebody else's, and whose it would be."""
    try:
        yield
    except PycoreError as error:
        raise PycoreError(f"{ctx.container}: {path}: {error.message}", hint=error.hint) from None
    except ValueError as error:
        raise PycoreError(f"{ctx.container}: {path}: {error}") from None


@dataclass(frozen=True)
class MemoryRoot(InsideOperation):
    """The same with a writable layer in memory, where the disk cannot hold one: a tmpfs in no place, which goes with
    the process. What is written is charged to the container's cgroup.
    """

    step = Step.ROOT
    outside = True
    lower: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    own: bool = False
    size: int = 0
    """In bytes; 0 for the kernel's own limit, half of the memory."""

    def hold(self, ctx: Context) -> None:
        kernel = ctx.kernel
        with contextlib.ExitStack() as opened:
            lower = _shown(ctx, opened, self.lower, self.own)
            options: dict[str, str | None] = {"mode": "755"}
            if self.size:
                options["size"] = str(self.size)
            memory = _opened(opened, kernel.mount_new("tmpfs", options, libc.MOUNT_ATTR_NODEV))
            _make_layer(kernel, f"/proc/self/fd/{memory}", self.lower[-1], self.hidden, ctx.root_id)
            ctx.held[self] = kernel.mount_overlay(lower, memory)

    def do(self, ctx: Context) -> None:
        ctx.root = ctx.held.pop(self)

    def explain(self) -> str:
        words = f"mount overlay on / (lower={':'.join(self.lower)}, nodev)"
        return f"{words}; the writable layer is in memory, and ends with the process"


@dataclass(frozen=True)
class HostSkeleton(Operation):
    """Make a root with the host's directories, empty, and its links, for the host's parts to be shown in."""

    step = Step.LAYER
    path: str
    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """(path, what it says)."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.path)
        for name in self.directories:
            mode = 0o1777 if name in _FOR_ALL else 0o755
            ctx.kernel.mkdir(f"{self.path}{name}", mode)
        for name, text in self.links:
            ctx.kernel.make_link(text, f"{self.path}{name}")

    def undo(self, ctx: Context) -> None:
        ctx.kernel.rmtree(self.path)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(self.path)

    def explain(self) -> str:
        return f"make {self.path}, with empty directories and links as the host's root has them"


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


def remove(kernel: Kernel, path: str) -> None:
    """Remove a container's own files. Their limit first, also where that has failed before: see ``forget_quota``."""
    kernel.forget_quota(path)
    kernel.rmtree(path)


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


def _shown(ctx: Context, opened: contextlib.ExitStack, layers: Sequence[str], own: bool) -> list[int]:
    """Descriptors of layers; in a user namespace those of the container's own image are shown with other owners."""
    if not (own and ctx.id_count):
        return [_opened(opened, ctx.kernel.open_path(path)) for path in layers]
    with in_words(ctx, layers[0]):
        ids = idmap.lines(ctx.root_id, ctx.id_count)
        return opened.enter_context(ctx.kernel.shown_layers(layers, ids, ids))


def _opened(opened: contextlib.ExitStack, fd: int) -> int:
    """A descriptor that is closed with the others."""
    opened.callback(os.close, fd)
    return fd
