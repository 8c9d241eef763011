"""The driver ``overlayfs``: a copy-on-write view of an image, made in a millisecond.

With ``image = "host"`` the image is the host's root file system. The container then can read whatever its
user may read on the host's disk: programs and libraries, but also configuration in /etc and files in /home,
where they are on the root file system. It cannot change any of it, reach sockets (a name on an overlay leads
to no listener of the host), or see what is only mounted on the host: /proc, /run, a /home of its own. File
systems mounted where programs are kept (:data:`PROGRAMS`) are shown read-only; pycore's own directories are
hidden. ``user``, or ``userns``, narrows what can be read to what that user could.

For a normal user the kernel shows nothing of the host's root but with all that is mounted in it, for what is under a
mount may be hidden on purpose; overlayfs takes single file systems. So there it is a root of its own, with the host's
links and empty directories, and in it the directories where programs are kept, read-only: nothing in them is the
user's to write to anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, Requirement, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Container, Process, Section

from pycore_storage.ops.layers import HostPart, HostSkeleton
from pycore_storage.ops.roots import ReadOnlyRoot
from pycore_storage.root import VolatileRoot, lacks_quota
from pycore_storage.snapshots import MemorySnapshot, OverlaySnapshot
from pycore_storage.sources import Base, base_of, own_paths

PROGRAMS = ("/usr", "/opt", "/nix", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc")
"""Where a host keeps what programs are made of."""

_STATE = ("/var/cache", "/var/lib", "/var/log", "/var/tmp")
"""Directories that programs expect beside those in the root."""

_DISKS = ("bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "squashfs", "xfs", "zfs")

_NO_UPPER = (
    "overlay", "aufs", "ecryptfs", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "vfat", "msdos",
    "exfat", "ntfs", "ntfs3", "hfs", "hfsplus", "iso9660", "squashfs", "erofs", "ramfs", "fuseblk",
)  # fmt: skip
"""File systems that overlayfs refuses above, or uses without whiteouts: no d_type, no trusted xattrs, no
RENAME_WHITEOUT, or names that change behind its back (overlayfs.rst, Upper and Lower)."""


@hookimpl
def pycore_driver() -> Driver:
    """The one that serves where none is named."""
    return Driver("storage", "overlayfs", "A copy-on-write view of an image, made in a millisecond.", default=True)


@hookimpl
def pycore_sections() -> Sequence[type[Section]]:
    """``read_only``, ``size``, ``volatile``."""
    return [VolatileRoot]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """Overlayfs in the kernel."""
    yield Requirement(
        "overlayfs in the kernel",
        met="overlay" in look.read("/proc/filesystems").split(),
        why='storage driver "overlayfs"',
        mend="modprobe overlay",
    )


@hookimpl
def pycore_snapshot(container: Container, host: Host) -> OverlaySnapshot | MemorySnapshot | None:
    """An overlay, whose changes are on the disk, or in memory where the disk cannot hold them."""
    base = base_of(container, host)
    return None if isinstance(base, Problem) else _snapshot(base, container, host)


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Make the writable layer."""
    base = base_of(container, host)
    if isinstance(base, Problem):
        host.problems.append(base)
        return
    snapshot = _snapshot(base, container, host)
    problem = lacks_quota(container, host) if isinstance(snapshot, OverlaySnapshot) else None
    if problem:
        host.problems.append(problem)
    if base.is_host and host.look.in_user_namespace():
        yield _skeleton(container, host)
    yield from snapshot.prepare()


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """Mount the overlay; for a view of the host also what it has mounted below its root."""
    base = base_of(container, host)
    if isinstance(base, Problem):
        return
    yield from _snapshot(base, container, host).mount()
    if base.is_host:
        yield from (HostPart(path) for path in parts_of_host(host))
    if container[VolatileRoot].read_only:
        yield ReadOnlyRoot()


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    """The image and where the container's changes to it are; in no place, where they are in memory."""
    held = can_hold_layer(host.look, str(host.data_dir))
    return {"image": container[Process].image, "layer": f"{layer_dir(container, host)}/upper" if held else None}


def _snapshot(base: Base, container: Container, host: Host) -> OverlaySnapshot | MemorySnapshot:
    path, layers, hidden = layer_dir(container, host), base.layers, own_paths(host, base.layers[-1])
    if base.is_host and host.look.in_user_namespace():
        layers, hidden = (_skeleton(container, host).path,), ()
    root = container[VolatileRoot]
    if not can_hold_layer(host.look, str(host.data_dir)):
        return MemorySnapshot(layers, hidden, not base.is_host, root.bytes)
    return OverlaySnapshot(layers, path, hidden, not base.is_host, root.bytes, root.volatile)


def _skeleton(container: Container, host: Host) -> HostSkeleton:
    names = [f"/{name}" for name in host.look.listdir("/")]
    links = tuple((name, text) for name in names if (text := host.look.link(name)))
    directories = (name for name in names if not host.look.link(name) and host.look.is_dir(name))
    path = str(host.container_dir(container) / "host")
    return HostSkeleton(path, (*directories, *_STATE), links)


def layer_dir(container: Container, host: Host) -> str:
    """Where the layer is kept."""
    return str(host.container_dir(container) / "layer")


@lru_cache(maxsize=8)
def can_hold_layer(look: Look, data_dir: str) -> bool:
    """Whether overlayfs can write to the file system of the data dir. Asked once: it does not change under us."""
    fstype = look.filesystem(data_dir)
    return fstype not in _NO_UPPER and not fstype.startswith("fuse.")


def parts_of_host(host: Host) -> list[str]:
    """Where the host has disks mounted among :data:`PROGRAMS`, outermost first and none below another.

    For a normal user all of those directories themselves.
    """
    if host.look.in_user_namespace():
        return [path for path in PROGRAMS if not host.look.link(path) and host.look.is_dir(path)]
    found: list[str] = []
    for point, fstype in sorted(host.look.mounts()):
        wanted = fstype in _DISKS and _is_below(point, PROGRAMS) and not _is_below(point, found)
        if wanted and host.look.is_dir(point) and not own_paths(host, point):
            found.append(point)
    return found


def _is_below(path: str, others: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{other}/") for other in others)
