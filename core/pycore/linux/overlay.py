"""Mounting an overlay of any number of layers, each given as a descriptor.

It is told their names in /proc: so no character of a path means anything to overlayfs, and mountinfo, which a container
can read, tells nothing of the host's directories; with the descriptors themselves, which Linux 6.13 takes, it would.
Layers one by one need Linux 6.5, detached mounts as layers 6.15; older kernels get what they take.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Generator, Sequence

from pycore.errors import PycoreError
from pycore.linux import libc

MAX_LAYERS = 500
"""Lower layers of one overlay (OVL_MAX_STACK in fs/overlayfs)."""
_MAX_STRING = 255
"""Bytes of a string that fsconfig(2) takes."""

Add = Callable[[int, Sequence[int]], None]


def mount(lower: Sequence[int], layer: int, *, volatile: bool = False) -> int:
    """The overlay as a detached mount: ``lower`` has the uppermost first, ``layer`` has ``upper`` and ``work`` in it;
    without it (-1) nobody can write.

    Device nodes stay without effect. Nothing beside a layer's own files says how it is to be read: ``index`` is off, as
    a lower layer may have changed between starts; no directory is redirected, and no file has its content elsewhere, so
    that ``upper`` is a whole layer by itself. Raises OSError, PycoreError for more layers than the kernel takes.
    """
    if len(lower) > MAX_LAYERS:
        raise PycoreError(f"it has {len(lower)} layers, and overlayfs takes {MAX_LAYERS}", hint='driver = "vfs"')
    try:
        return _mount(lower, layer, volatile)
    except OSError as error:
        if error.errno != errno.EINVAL or not any(map(_is_detached, lower)):
            raise
    with _attached(lower):
        return _mount(lower, layer, volatile)


def _mount(lower: Sequence[int], layer: int, volatile: bool) -> int:
    with contextlib.ExitStack() as opened:
        own: dict[str, int] = {}
        for option, name in (("upperdir", "upper"), ("workdir", "work")) if layer >= 0 else ():
            own[option] = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=layer)
            opened.callback(os.close, own[option])
        for add in (_one_by_one, _all_at_once):
            context = libc.fsopen("overlay")
            try:
                return _create(context, add, lower, own, volatile)
            except _NotSo:
                continue
            except OSError as error:
                words = message(context) or os.strerror(error.errno or 0)
                raise OSError(error.errno, words, "overlay") from None
            finally:
                os.close(context)
    raise PycoreError(
        f"this kernel takes no {len(lower)} layers",
        hint='Linux 6.5 and newer take 500; driver = "vfs" works with all',
    )


class _NotSo(Exception):
    """The kernel does not take layers this way."""


def _create(context: int, add: Add, lower: Sequence[int], own: dict[str, int], volatile: bool) -> int:
    libc.fsconfig(context, "source", "overlay")
    add(context, lower)
    for option, fd in own.items():
        libc.fsconfig(context, option, _name(fd))
    libc.fsconfig(context, "metacopy", "off")
    libc.fsconfig(context, "redirect_dir", "nofollow")
    libc.fsconfig(context, "index", "off")
    if volatile:
        libc.fsconfig(context, "volatile", None)
    return libc.fsmount(context, libc.MOUNT_ATTR_NODEV)


def _one_by_one(context: int, lower: Sequence[int]) -> None:
    for number, fd in enumerate(lower):
        try:
            libc.fsconfig(context, "lowerdir+", _name(fd))
        except OSError as error:
            if number or error.errno != errno.EINVAL:
                raise
            raise _NotSo from None


def _all_at_once(context: int, lower: Sequence[int]) -> None:
    names = ":".join(map(_name, lower))
    if len(names) > _MAX_STRING:
        raise _NotSo
    libc.fsconfig(context, "lowerdir", names)


def _name(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def message(context: int) -> str:
    """What the file system itself said: fsopen(2) descriptors can be read for messages."""
    with contextlib.suppress(OSError):
        return os.read(context, 4096).decode("utf-8", "replace").partition(" ")[2].strip()
    return ""


# -- kernels before 6.15 ---------------------------------------------------------------------------------


def _is_detached(fd: int) -> bool:
    """Whether a descriptor is of a mount that is in no place: its id is in no mountinfo."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        identity = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo", "rb") as file:
        return not any(line.split(b" ", 1)[0] == identity.encode() for line in file)


@contextlib.contextmanager
def _attached(trees: Sequence[int]) -> Generator[None, None, None]:
    """Give detached mounts a place for the length of a with block, in a mount namespace of our own.

    For a process with one thread: it comes back to where it was (setns(2)).
    """
    with contextlib.ExitStack() as opened:
        before = [os.open(path, flags | os.O_CLOEXEC) for path, flags in _WHERE]
        for fd in before:
            opened.callback(os.close, fd)
        namespace, root, here = before
        libc.unshare(libc.CLONE_NEWNS)
        try:
            libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE, None)
            for tree in filter(_is_detached, trees):
                libc.move_mount_path(tree, "/sys")
            yield
        finally:
            libc.setns(namespace, libc.CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)


_WHERE = (("/proc/self/ns/mnt", os.O_RDONLY), ("/", os.O_PATH | os.O_DIRECTORY), (".", os.O_PATH | os.O_DIRECTORY))
