"""Copying a directory so that nothing tells the copy from the original, but devices, sockets and other mounts.

The source is walked by paths below its descriptor, resolved by the kernel inside it: whoever may write to
it meanwhile can spoil the copy, not lead it out of the source.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator

from pycore.linux import libc, rmtree

_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_PRIVATE = ("trusted.overlay.", "user.overlay.")
"""What overlayfs notes down for itself; it means nothing elsewhere."""


def copy(source: str, destination: str, first_id: int = 0) -> None:
    """Copy a directory to ``destination``, which must not exist and is gone again if that fails.

    Owners, modes, times, extended attributes (capabilities and ACLs are such), hard links, symbolic links and
    holes are kept; extents are shared where the file system can (copy_file_range(2)). A file system mounted
    below the source becomes an empty directory; devices and sockets are left out. ``first_id`` is added to
    every owner. Raises OSError.
    """
    os.mkdir(destination, 0o700)
    try:
        with _opened(source) as origin, _opened(destination) as target:
            _Copy(origin, target, first_id).run()
    except BaseException:
        rmtree.remove(destination)
        raise


class _Copy:
    """One copy under way: two roots, and the files with several names met so far."""

    def __init__(self, origin: int, target: int, first_id: int) -> None:
        self._origin, self._target, self._first_id = origin, target, first_id
        self._device = os.fstat(origin).st_dev
        self._linked: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        """Directories get their attributes last: copying into them changes their times."""
        directories = ["."]
        for path in directories:  # grows as it goes
            directories += self._directory(path)
        for path in reversed(directories):
            with self._both(path) as (old, new):
                self._attributes(old, new)

    def _directory(self, path: str) -> list[str]:
        """Copy what is in one directory; the paths of the directories in it."""
        found: list[str] = []
        with self._both(path) as (old, new):
            if os.fstat(old).st_dev != self._device:
                return found
            with os.scandir(old) as entries:
                for entry in entries:
                    inner = f"{path}/{entry.name}"
                    with _named(inner):
                        if entry.is_dir(follow_symlinks=False):
                            os.mkdir(entry.name, 0o700, dir_fd=new)
                            found.append(inner)
                        else:
                            self._leaf(inner, entry.name, old, new)
        return found

    def _leaf(self, path: str, name: str, old: int, new: int) -> None:
        info = os.stat(name, dir_fd=old, follow_symlinks=False)
        first = self._linked.setdefault((info.st_dev, info.st_ino), path) if info.st_nlink > 1 else path
        if first != path:
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=new, follow_symlinks=False)
        elif stat.S_ISREG(info.st_mode):
            self._file(name, old, new)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
            self._own(name, new, info)
        elif stat.S_ISFIFO(info.st_mode):
            os.mkfifo(name, dir_fd=new)
            self._own(name, new, info)
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=new)
        else:
            self._linked.pop((info.st_dev, info.st_ino), None)

    def _file(self, name: str, old: int, new: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with _descriptor(os.open(name, flags, dir_fd=old)) as source:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with _descriptor(os.open(name, flags, 0o600, dir_fd=new)) as target:
                _data(source, target)
                self._attributes(source, target)

    def _attributes(self, source: int, target: int) -> None:
        """Owner first: chown(2) clears setuid bits and file capabilities. Times last."""
        info = os.fstat(source)
        os.fchown(target, self._first_id + info.st_uid, self._first_id + info.st_gid)
        os.fchmod(target, stat.S_IMODE(info.st_mode))
        for name in os.listxattr(source):
            if not name.startswith(_PRIVATE):
                try:
                    os.setxattr(target, name, os.getxattr(source, name))
                except OSError as error:
                    if error.errno != errno.EOPNOTSUPP:  # the target's file system has no such attributes
                        raise
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _own(self, name: str, directory: int, info: os.stat_result) -> None:
        owner, group = self._first_id + info.st_uid, self._first_id + info.st_gid
        os.chown(name, owner, group, dir_fd=directory, follow_symlinks=False)
        times = (info.st_atime_ns, info.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    @contextlib.contextmanager
    def _both(self, path: str) -> Generator[tuple[int, int], None, None]:
        """The same directory in the original and in the copy."""
        with _named(path), _opened(path, self._origin) as old, _opened(path, self._target) as new:
            yield old, new


@contextlib.contextmanager
def _opened(path: str, root: int | None = None) -> Generator[int, None, None]:
    """A directory; with ``root``, resolved by the kernel below that directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with _descriptor(os.open(path, flags) if root is None else libc.openat2(root, path, flags)) as fd:
        yield fd


@contextlib.contextmanager
def _descriptor(fd: int) -> Generator[int, None, None]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _named(path: str) -> Generator[None, None, None]:
    """An error says which file of the source it met."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise


def _data(source: int, target: int) -> None:
    """The bytes, extent by extent; what lies between extents stays a hole (lseek(2), SEEK_DATA)."""
    size = os.fstat(source).st_size
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        _extent(source, target, start, min(end, size))
    os.ftruncate(target, size)


def _extent(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        try:
            copied = os.copy_file_range(source, target, end - start, start, start)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            os.lseek(target, start, os.SEEK_SET)
            copied = os.sendfile(target, source, start, end - start)
        if not copied:  # it was cut short meanwhile
            return
        start += copied
