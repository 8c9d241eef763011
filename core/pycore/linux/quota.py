"""Project quotas: a limit to what a directory holds, where the file system keeps count of that (quotactl(2)).

A directory with a project's id and the flag to hand it on gives it to all that is made in it. The kernel counts by
that id, and refuses to write beyond the limit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import struct
import sys

from pycore.linux import libc
from pycore.linux.measure import Usage

_FIELDS = struct.Struct("=5I8x")
"""struct fsxattr (linux/fs.h): flags, extent size, extents, project id, copy-on-write extent size."""
_GET_ATTRIBUTES = 2 << 30 | _FIELDS.size << 16 | ord("X") << 8 | 31
_SET_ATTRIBUTES = 1 << 30 | _FIELDS.size << 16 | ord("X") << 8 | 32
_HANDED_ON = 0x200
"""FS_XFLAG_PROJINHERIT"""

_PROJECT = 2
_GET, _SET, _STATE = (command << 8 | _PROJECT for command in (0x800007, 0x800008, ord("X") << 8 | 5))
"""Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTAT for projects."""
_LIMITS = struct.Struct("=8QI4x")
"""struct if_dqblk: blocks (hard, soft), bytes in use, inodes (hard, soft, in use), two times, which of these count."""
_BLOCK_LIMITS = 1
_ENFORCED = 1 << 5
"""FS_QUOTA_PDQ_ENFD in the flags of struct fs_quota_stat."""
_KEEPS_NONE = (errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESRCH)
"""What a kernel or a file system answers that does not count by projects, or does not any more."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
_OURS = 1 << 30
"""Where ids of ours begin: far above those that people write into /etc/projid."""


def is_enforced(path: str) -> bool:
    """Whether the file system of a path keeps limits for projects."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        state = libc.quotactl_fd(fd, _STATE, 0, bytes(128))
    except OSError:
        return False
    finally:
        os.close(fd)
    return bool(int.from_bytes(state[2:4], sys.byteorder) & _ENFORCED)


def limit(path: str, size: int) -> None:
    """Let a directory and all that is in it take ``size`` bytes at most. Raises OSError."""
    fd = os.open(path, _DIRECTORY)
    try:
        project = _own_project(fd)
        if not project:
            project = _free_project(fd, path)
            _join_all(fd, project)
        _set(fd, project, size)
    finally:
        os.close(fd)


def forget(path: str) -> None:
    """Take the limit of a directory away, if it has one. To be done before it is removed: what it was counted under is
    found by it alone. Raises OSError.
    """
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        if project := _own_project(fd):
            _set(fd, project, 0)
    except OSError as error:
        if error.errno not in _KEEPS_NONE:
            raise
    finally:
        os.close(fd)


def usage(path: str) -> Usage | None:
    """What a directory takes, as the kernel has counted it; None where it does not count."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        if project := _own_project(fd):
            _, _, size, _, _, inodes, *_ = _limits(fd, project)
            return Usage(size, inodes)
    except OSError:
        pass
    finally:
        os.close(fd)
    return None


def _set(fd: int, project: int, size: int) -> None:
    blocks = -(-size // 1024)
    libc.quotactl_fd(fd, _SET, project, _LIMITS.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))


def _limits(fd: int, project: int) -> tuple[int, ...]:
    try:
        return _LIMITS.unpack(libc.quotactl_fd(fd, _GET, project, bytes(_LIMITS.size)))
    except OSError as error:
        if error.errno == errno.ENOENT:  # XFS has never heard of this one
            return _LIMITS.unpack(bytes(_LIMITS.size))
        raise


def _free_project(fd: int, path: str) -> int:
    """An id that nothing belongs to, found from the path, so that it is seldom another's."""
    start = int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:4], "big")
    for step in range(1000):
        project = _OURS + (start + step) % _OURS
        if not any(_limits(fd, project)[:6]):
            return project
    raise OSError(errno.ENOSPC, "no project id is free", path)


def _own_project(fd: int) -> int:
    """What a directory is counted under, 0 for nothing. What it has from the directory above is somebody else's: the
    limit that the host has set for a whole data dir, or that of a container in which pycore runs.
    """
    project = _project(fd)
    if project < _OURS:
        return 0
    above = os.open("..", _DIRECTORY, dir_fd=fd)
    try:
        return project if project != _project(above) else 0
    finally:
        os.close(above)


def _project(fd: int) -> int:
    return int(_FIELDS.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_FIELDS.size)))[3])


def _join_all(root: int, project: int) -> None:
    """Count a directory and what is in it for a project: directories and files, nothing else can be opened for it.

    Who writes there meanwhile does not lead us out of it: no link is followed.
    """
    waiting = ["."]
    while waiting:
        here = waiting.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            directory = libc.openat2(root, here, _READ | os.O_DIRECTORY, follow=False)
            try:
                _join(directory, project)
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(f"{here}/{entry.name}")
                        elif entry.is_file(follow_symlinks=False):
                            _join_file(directory, entry.name, project)
            finally:
                os.close(directory)


def _join_file(directory: int, name: str, project: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        file = libc.openat2(directory, name, _READ, follow=False)
        try:
            _join(file, project)
        finally:
            os.close(file)


def _join(fd: int, project: int) -> None:
    """A directory hands it on."""
    flags, size, extents, _, cow = _FIELDS.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_FIELDS.size)))
    flags |= _HANDED_ON if stat.S_ISDIR(os.fstat(fd).st_mode) else 0
    fcntl.ioctl(fd, _SET_ATTRIBUTES, _FIELDS.pack(flags, size, extents, project, cow))
