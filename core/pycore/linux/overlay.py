"""Mounting an overlay of any number of layers, each given as a descriptor.

It is told their names in /proc: so no character of a path means anything to overlayfs, and mountinfo, which a container
can read, tells nothing of the host's directories; with the descriptors themselves, which Linux 6.13 takes, it would.
Linux 6.7 takes layers one by one, and 6.15 those that are mounted in no place; for older ones there is a longer way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Generator, Sequence
from functools import cache

from pycore.errors import PycoreError
from pycore.linux import libc
from pycore.linux.look import Look

MAX_LAYERS = 500
"""Lower layers of one overlay (OVL_MAX_STACK in fs/overlayfs)."""
_COMMON = {"metacopy": "off", "redirect_dir": "nofollow", "index": "off"}


@cache
def prefix() -> str:
    """How the attributes begin in which overlayfs notes things down for itself. In a user namespace nobody may write
    those that others must not see.
    """
    return "user.overlay." if Look().in_user_namespace() else "trusted.overlay."


def _flags(volatile: bool) -> list[str]:
    return [*(["volatile"] if volatile else []), *(["userxattr"] if prefix() == "user.overlay." else [])]


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
        return _one_by_one(lower, layer, volatile)
    except _TooOld:
        pass
    except OSError as error:
        if error.errno != errno.EINVAL or not any(_is_detached(fd) for fd in (*lower, layer) if fd >= 0):
            raise
    return _at_once(lower, layer, volatile)


@contextlib.contextmanager
def _own(layer: int) -> Generator[dict[str, int], None, None]:
    """Where it is written to, by the options that say so."""
    with contextlib.ExitStack() as opened:
        own: dict[str, int] = {}
        for option, name in (("upperdir", "upper"), ("workdir", "work")) if layer >= 0 else ():
            own[option] = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=layer)
            opened.callback(os.close, own[option])
        yield own


@contextlib.contextmanager
def shown(paths: Sequence[str], userns: int) -> Generator[list[int], None, None]:
    """Directories as layers whose files have other owners, by the maps of a user namespace: for a with block.

    To mount each of them takes longer than all the rest of a start, so those that lie in one mount are seen through one
    copy of it. Raises OSError: EINVAL where the file system cannot show other owners.
    """
    with contextlib.ExitStack() as opened:

        def kept(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        common = os.path.commonpath(paths) if len(paths) > 1 and _is_new() else ""
        whole = -1
        if common:
            with contextlib.suppress(OSError):  # the layers may lie in other mounts
                whole = kept(_shown(common, userns))
        found: list[int] = []
        for path in paths:
            fd = _below(whole, os.path.relpath(path, common), path) if whole >= 0 else -1
            found.append(kept(fd if fd >= 0 else _shown(path, userns)))
        yield found


def _shown(path: str, userns: int) -> int:
    tree = libc.open_tree(path, recursive=False)
    try:
        libc.mount_setattr(tree, 0, recursive=False, propagation=libc.MS_PRIVATE, userns=userns)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _below(tree: int, way: str, path: str) -> int:
    """The same directory in the copy of a mount; -1 where it lies in another mount."""
    try:
        fd = libc.openat2(tree, way, os.O_PATH | os.O_DIRECTORY, follow=False)
    except OSError:
        return -1
    if os.path.samestat(os.fstat(fd), os.stat(path)):
        return fd
    os.close(fd)
    return -1


def _is_new() -> bool:
    """Whether overlayfs takes directories in mounts that are in no place: Linux 6.15."""
    major, minor = (int(word) for word in re.findall(r"\d+", os.uname().release)[:2])
    return (major, minor) >= (6, 15)


class _TooOld(Exception):
    """The kernel does not take layers this way."""


def _one_by_one(lower: Sequence[int], layer: int, volatile: bool) -> int:
    context = libc.fsopen("overlay")
    try:
        libc.fsconfig(context, "source", "overlay")
        for number, fd in enumerate(lower):
            try:
                libc.fsconfig(context, "lowerdir+", f"/proc/self/fd/{fd}")
            except OSError as error:
                if number or error.errno != errno.EINVAL:
                    raise
                raise _TooOld from None
        for option, value in _COMMON.items():
            libc.fsconfig(context, option, value)
        for flag in _flags(volatile):
            libc.fsconfig(context, flag, None)
        with _own(layer) as own:
            for option, fd in own.items():
                libc.fsconfig(context, option, f"/proc/self/fd/{fd}")
            return libc.fsmount(context, libc.MOUNT_ATTR_NODEV)
    except OSError as error:
        if error.errno == errno.EINVAL and _takes_anything():
            raise _TooOld from None
        raise OSError(error.errno, message(context) or os.strerror(error.errno or 0), "overlay") from None
    finally:
        os.close(context)


def _takes_anything() -> bool:
    """Whether options are not looked at before the file system is made: then, before 6.5, it knows no ``lowerdir+``."""
    context = libc.fsopen("overlay")
    try:
        libc.fsconfig(context, "no such option", "")
    except OSError:
        return False
    finally:
        os.close(context)
    return True


def message(context: int) -> str:
    """What the file system itself said: fsopen(2) descriptors can be read for messages."""
    with contextlib.suppress(OSError):
        return os.read(context, 4096).decode("utf-8", "replace").partition(" ")[2].strip()
    return ""


# -- older kernels ---------------------------------------------------------------------------------------


def _at_once(lower: Sequence[int], layer: int, volatile: bool) -> int:
    """By mount(2), in a mount namespace of our own, in which a copy of each layer's mount gets a place: it is there
    that overlayfs must find them. Their names are numbers, so that one page, which is what mount(2) takes, suffices.
    """
    numbers = range(len(lower))
    named = {"lowerdir": ":".join(map(str, numbers)), **_COMMON}
    if layer >= 0:
        named |= {"upperdir": "own/upper", "workdir": "own/work"}
    options = ",".join([*(f"{option}={value}" for option, value in named.items()), *_flags(volatile)])
    with contextlib.ExitStack() as opened:

        def placed(fd: int) -> int:
            if _is_detached(fd):
                return fd
            tree = libc.open_tree(fd, recursive=False)
            opened.callback(os.close, tree)
            return tree

        trees = {str(number): placed(fd) for number, fd in zip(numbers, lower, strict=True)}
        if layer >= 0:
            trees["own"] = placed(layer)
        opened.enter_context(_aside())
        libc.mount("tmpfs", "/sys", "tmpfs", 0, None)
        os.chdir("/sys")
        for name, tree in trees.items():
            os.mkdir(name)
            libc.move_mount_path(tree, name)
        libc.mount("overlay", "/proc", "overlay", libc.MOUNT_ATTR_NODEV, options)
        return libc.open_tree("/proc", recursive=False)


def _is_detached(fd: int) -> bool:
    """Whether a descriptor is of a mount that is in no place: its id is in no mountinfo."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        identity = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    with open("/proc/thread-self/mountinfo", "rb") as file:
        return not any(line.split(b" ", 1)[0] == identity.encode() for line in file)


@contextlib.contextmanager
def _aside() -> Generator[None, None, None]:
    """A mount namespace of our own for the length of a with block; this thread then comes back to where it was."""
    with contextlib.ExitStack() as opened:
        before = [os.open(path, flags | os.O_CLOEXEC) for path, flags in _WHERE]
        for fd in before:
            opened.callback(os.close, fd)
        namespace, root, here = before
        libc.unshare(libc.CLONE_NEWNS)
        try:
            libc.mount(None, "/", None, libc.MS_REC | libc.MS_PRIVATE, None)
            yield
        finally:
            libc.setns(namespace, libc.CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)


_WHERE = (
    ("/proc/thread-self/ns/mnt", os.O_RDONLY), ("/", os.O_PATH | os.O_DIRECTORY), (".", os.O_PATH | os.O_DIRECTORY),
)  # fmt: skip
