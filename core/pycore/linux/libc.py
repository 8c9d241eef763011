"""System calls that Python does not have, through the C library, argument types declared once.

Numbers are those of asm-generic/unistd.h and, for the newer calls, the same on every architecture but
alpha; the C library of Debian 12 has no wrapper for most of them, hence syscall(2). PyDLL keeps the GIL:
the calls are short, and a clone must not come back in a child that waits for a lock nobody holds. One waits for the
disk, and lets other threads go on meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterable
from ctypes import c_char_p, c_int, c_long, c_uint, c_ulong
from typing import Any, cast

_libc = ctypes.PyDLL(None, use_errno=True)
_waiting = ctypes.CDLL(None, use_errno=True)

MS_REC, MS_PRIVATE = 0x4000, 1 << 18
MNT_DETACH = 2

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_NEWTIME = 0x80
CLONE_FILES, CLONE_PARENT = 0x400, 0x8000
CLONE_PIDFD, CLONE_INTO_CGROUP = 0x1000, 0x200000000

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 8, 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_IDMAP = 0x100000
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_IN_ROOT = 2, 4, 0x10
_SECCOMP_SET_MODE_FILTER = 1
_CLOSE_RANGE_CLOEXEC = 4
_RENAME_EXCHANGE = 2

_PIVOT_ROOT, _SECCOMP, _RT_SIGACTION = {"x86_64": (155, 317, 13), "aarch64": (41, 277, 134)}.get(
    platform.machine(), (155, 317, 13)
)
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR, _QUOTACTL_FD = 435, 436, 437, 442, 443


def _declare(name: str, *arguments: Any) -> Callable[..., int]:
    """A function of the C library that returns an int, with its argument types."""
    function = getattr(_libc, name)
    function.argtypes, function.restype = arguments, c_int
    return cast("Callable[..., int]", function)


_mount = _declare("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _declare("umount2", c_char_p, c_int)
_unshare = _declare("unshare", c_int)
_setns = _declare("setns", c_int, c_int)
_prctl = _declare("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capset = _declare("capset", c_char_p, c_char_p)
_fstatfs = _declare("fstatfs", c_int, ctypes.c_void_p)
_renameat2 = _declare("renameat2", c_int, c_char_p, c_int, c_char_p, c_uint)
_read = _declare("read", c_int, ctypes.c_void_p, c_ulong)
_libc.syscall.restype = c_long
_syscall = cast("Callable[..., int]", _libc.syscall)


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """mount(2)."""
    _check(_mount(_bytes(source), _bytes(target), _bytes(fstype), flags, _bytes(data)), target)


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_umount2(_bytes(target), flags), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_syscall(c_long(_PIVOT_ROOT), _bytes(new), _bytes(old)), new)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_unshare(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2): this thread joins the namespace; ``kind`` is CLONE_NEW* or 0."""
    _check(_setns(fd, kind))


def prctl(option: int, argument: int = 0, third: int = 0) -> int:
    """prctl(2); unused arguments are 0, as the kernel asks."""
    return _check(_prctl(option, argument, third, 0, 0))


def child_subreaper() -> bool:
    """prctl(2), PR_GET_CHILD_SUBREAPER: whether orphans among this process's descendants become its children."""
    answer = c_int(0)
    _check(_prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer), 0, 0, 0))
    return bool(answer.value)


_kept: list[ctypes.Array[ctypes.c_char]] = []


def address_of(text: bytes) -> int:
    """The address of a C string that is kept for good, for prctl(2) arguments that are pointers."""
    buffer = ctypes.create_string_buffer(text)
    _kept.append(buffer)
    return ctypes.addressof(buffer)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) with _LINUX_CAPABILITY_VERSION_3: two 32-bit words per set."""
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "6I",
        effective & low, permitted & low, inheritable & low,
        effective >> high, permitted >> high, inheritable >> high,
    )  # fmt: skip
    _check(_capset(struct.pack("Ii", 0x20080522, 0), data))


def fsopen(fstype: str) -> int:
    """fsopen(2)."""
    return _check(_syscall(c_long(_FSOPEN), _bytes(fstype), c_uint(_FSOPEN_CLOEXEC)), fstype)


def fsconfig(context: int, key: str, value: str | None) -> None:
    """fsconfig(2): set one option; None sets a flag."""
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    _check(_syscall(c_long(_FSCONFIG), c_int(context), c_uint(command), _bytes(key), _bytes(value), c_int(0)), value)


def fsmount(context: int, attributes: int) -> int:
    """fsconfig(2) with FSCONFIG_CMD_CREATE, then fsmount(2): the file system as a detached mount."""
    _check(_syscall(c_long(_FSCONFIG), c_int(context), c_uint(_FSCONFIG_CMD_CREATE), None, None, c_int(0)))
    return _check(_syscall(c_long(_FSMOUNT), c_int(context), c_uint(_FSMOUNT_CLOEXEC), c_uint(attributes)))


def open_tree(path: str | int, recursive: bool) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at a path, or at that of a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if isinstance(path, int):
        return _check(_syscall(c_long(_OPEN_TREE), c_int(path), b"", c_uint(flags | _AT_EMPTY_PATH)))
    return _check(_syscall(c_long(_OPEN_TREE), c_int(_AT_FDCWD), _bytes(path), c_uint(flags)), path)


def move_mount(tree: int, place: int) -> None:
    """move_mount(2) from a detached mount onto an O_PATH descriptor."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _check(_syscall(c_long(_MOVE_MOUNT), c_int(tree), b"", c_int(place), b"", c_uint(flags)))


def move_mount_path(tree: int, path: str) -> None:
    """move_mount(2) from a detached mount onto a path."""
    arguments = (c_int(tree), b"", c_int(_AT_FDCWD), _bytes(path), c_uint(_MOVE_MOUNT_F_EMPTY_PATH))
    _check(_syscall(c_long(_MOVE_MOUNT), *arguments), path)


def mount_setattr(tree: int, attributes: int, recursive: bool, *, propagation: int = 0, userns: int = -1) -> None:
    """mount_setattr(2): set MOUNT_ATTR_* on a mount (struct mount_attr, version 0).

    ``propagation`` is MS_PRIVATE or 0; ``userns`` a user namespace by whose maps the mount shows its owners, or -1.
    """
    attributes |= _MOUNT_ATTR_IDMAP if userns >= 0 else 0
    attr = struct.pack("4Q", attributes, 0, propagation, max(userns, 0))
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _check(_syscall(c_long(_MOUNT_SETATTR), c_int(tree), b"", c_uint(flags), attr, c_ulong(len(attr))))


def quotactl_fd(fd: int, command: int, identity: int, data: bytes) -> bytes:
    """quotactl_fd(2) of the file system of a descriptor; ``data`` as the kernel left it."""
    buffer = ctypes.create_string_buffer(data, len(data))
    arguments = (c_int(fd), c_uint(command), c_uint(identity), buffer)
    _check(_syscall(c_long(_QUOTACTL_FD), *arguments))
    return buffer.raw


def openat2(root: str | int, path: str, flags: int = os.O_PATH, mode: int = 0, *, follow: bool = True) -> int:
    """openat2(2) below ``root`` (a path, or a descriptor) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.

    Without ``follow`` no link on the way is followed (RESOLVE_NO_SYMLINKS).
    """
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if follow else _RESOLVE_NO_SYMLINKS)
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    base = root if isinstance(root, int) else os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _check(_syscall(c_long(_OPENAT2), c_int(base), _bytes(path), how, c_ulong(len(how))), path)
    finally:
        if base != root:
            os.close(base)


def open_inside(path: str, flags: int = os.O_PATH) -> int:
    """openat2(2) of an absolute path with RESOLVE_NO_MAGICLINKS, for a process whose root is the container's.

    Its own root is then what RESOLVE_IN_ROOT would be, and need not be opened each time.
    """
    how = struct.pack("3Q", flags | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS)
    return _check(_syscall(c_long(_OPENAT2), c_int(_AT_FDCWD), _bytes(path), how, c_ulong(len(how))), path)


def filesystem_type(fd: int) -> int:
    """fstatfs(2): the magic number of the file system that a descriptor is on, the first field of struct statfs."""
    answer = ctypes.create_string_buffer(256)
    _check(_fstatfs(fd, ctypes.addressof(answer)))
    return int.from_bytes(answer.raw[: ctypes.sizeof(c_long)], sys.byteorder)


def exchange(one: str, other: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE: each gets the other's name, at once."""
    _check(_renameat2(_AT_FDCWD, _bytes(one), _AT_FDCWD, _bytes(other), _RENAME_EXCHANGE), one)


def syncfs(fd: int) -> None:
    """syncfs(2): what is written to the file system of a descriptor is on the disk."""
    _check(cast(int, _waiting.syncfs(c_int(fd))))


def clone3(flags: int, cgroup: int = -1, end_signal: int = 17) -> tuple[int, int]:
    """clone3(2) as fork: (0, -1) in the child, (pid, pidfd) in the parent.

    Python's own fork hooks do not run, so the caller must have no other thread. ``cgroup`` is a
    descriptor of a cgroup v2 directory to be born in, or -1. The child's end is told by ``end_signal``, SIGCHLD;
    with 0 by none, and only who waits with __WALL hears of it.
    """
    pidfd = c_int(-1)
    into = CLONE_INTO_CGROUP if cgroup >= 0 else 0
    arguments = struct.pack(
        "11Q", flags | CLONE_PIDFD | into, ctypes.addressof(pidfd), 0, 0, end_signal, 0, 0, 0, 0, 0, max(cgroup, 0)
    )
    pid = _check(_syscall(c_long(_CLONE3), arguments, c_ulong(len(arguments))))
    return pid, pidfd.value


def wait_for_hangup(fd: int) -> None:
    """read(2) of a pipe in which nothing comes, for a process that was cloned just now: it must not ask for the GIL,
    which a thread that it has not got may hold.
    """
    byte = ctypes.create_string_buffer(1)
    while _read(fd, ctypes.addressof(byte), 1) > 0:
        pass


def seccomp_filter(program: bytes) -> None:
    """seccomp(2), SECCOMP_SET_MODE_FILTER, with struct sock_fprog built here."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _check(_syscall(c_long(_SECCOMP), c_uint(_SECCOMP_SET_MODE_FILTER), c_uint(0), fprog))


def default_signal(number: int) -> None:
    """rt_sigaction(2) itself: SIG_DFL also for a signal that the C library keeps to itself."""
    _check(_syscall(c_long(_RT_SIGACTION), c_int(number), bytes(32), None, c_ulong(8)))


def close_on_exec(first: int) -> None:
    """close_range(2) with CLOSE_RANGE_CLOEXEC: no descriptor from ``first`` on outlives exec."""
    _close_range(first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def close_all_but(keep: Iterable[int], first: int = 3) -> None:
    """close_range(2): close every descriptor from ``first`` on but those of ``keep``."""
    for fd in sorted({fd for fd in keep if fd >= first}):
        if fd > first:
            _close_range(first, fd - 1, 0)
        first = fd + 1
    _close_range(first, 0xFFFFFFFF, 0)


def _close_range(first: int, last: int, flags: int) -> None:
    _check(_syscall(c_long(_CLOSE_RANGE), c_uint(first), c_uint(last), c_uint(flags)))
