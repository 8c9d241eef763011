"""Unpacking a tar file that nobody vouches for into a directory of its own.

Python's :mod:`tarfile` only parses here. Its extraction filters compare path strings, which has been got
around more than once (CVE-2025-4517); instead every name is resolved by the kernel below the new directory
(openat2(2), RESOLVE_IN_ROOT), so no link, whatever it says, leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from typing import IO

from pycore.errors import PycoreError
from pycore.linux import libc, rmtree, tarstream

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."


def unpack(archive: str, destination: str, first_id: int = 0) -> None:
    """Unpack ``archive`` to ``destination``, which must not exist and appears only when it is whole and on the disk.

    Owners, modes, times of files, ``user.*`` attributes and file capabilities are kept; setuid bits too, so
    the directory above must be closed to other users. Device nodes are left out: a root is mounted nodev,
    and /dev is made anew. ``first_id`` is added to every owner. Raises OSError, or PycoreError for an archive
    that is damaged or beyond measure.
    """
    temporary = f"{destination}.new"
    with contextlib.suppress(FileNotFoundError):
        rmtree.remove(temporary)
    os.mkdir(temporary)
    os.chmod(temporary, 0o755)
    try:
        root = os.open(temporary, _DIRECTORY)
        try:
            with open(_regular(archive), "rb") as file:
                _extract(archive, file, Tree(root, first_id))
            libc.syncfs(root)
        finally:
            os.close(root)
        os.rename(temporary, destination)
    except BaseException:
        rmtree.remove(temporary)
        raise


def _regular(archive: str) -> int:
    """The archive opened. A pipe would make us wait, a device do something."""
    fd = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise PycoreError(f"{archive} is not a regular file")
    return fd


def _extract(archive: str, file: IO[bytes], tree: Tree) -> None:
    """Everything in it, in order; what is wrong with the archive becomes one sentence that names it."""
    try:
        for tar, member in tarstream.members(file):
            tree.add(tar, member)
    except tarstream.DAMAGED as error:
        raise PycoreError(f"{archive} is damaged, or not a tar file: {error or type(error).__name__}") from error
    except tarstream.Refused as error:
        raise PycoreError(f"{archive} is refused: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 raise it for bad data
            raise PycoreError(f"{archive} is damaged: {error}") from error
        raise


class Tree:
    """A directory that is being filled. Every path is resolved by the kernel with it as the root."""

    def __init__(self, root: int, first_id: int, *, follow: bool = True) -> None:
        """``follow`` says whether links on the way to an entry are followed, inside."""
        self._root, self._first_id, self._follow = root, first_id, follow
        self._bytes = 0

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Make one entry. Raises OSError with the entry's name, ValueError for a name that cannot be meant."""
        path = path_of(member.name)
        member.uid, member.gid = self._first_id + member.uid, self._first_id + member.gid
        self._bytes += member.size if member.isreg() else 0
        if self._bytes > tarstream.MAX_BYTES:
            raise tarstream.Refused(f"its files are larger than {tarstream.MAX_BYTES >> 30} GiB together")
        try:
            if not path:
                _own(self._root, member)
                return
            parent = self._parent(path)
            try:
                self._make(tar, member, parent, path.rpartition("/")[2])
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno is not None:
                error.filename, error.filename2 = member.name, None
            raise

    def _parent(self, path: str) -> int:
        """A descriptor of the directory above; made, with all above it, where the archive forgot it."""
        head = path.rpartition("/")[0]
        with contextlib.suppress(FileNotFoundError):
            return self._open(head or ".")
        above = self._parent(head)
        try:
            os.mkdir(head.rpartition("/")[2], 0o755, dir_fd=above)
        except FileExistsError:
            raise FileNotFoundError(errno.ENOENT, "a link on the way leads to what is not there (yet)") from None
        finally:
            os.close(above)
        return self._open(head)

    def _open(self, path: str) -> int:
        return libc.openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY, follow=self._follow)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if member.isdir():
            _directory(member, parent, name)
        elif member.isreg():
            _clear(parent, name)
            _file(tar, member, parent, name)
        elif member.issym():
            _clear(parent, name)
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=times_of(member), dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            self._hard_link(member, parent, name)
        elif member.isfifo():
            _clear(parent, name)
            os.mkfifo(name, dir_fd=parent)
            _own_name(member, parent, name)

    def _hard_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = path_of(member.linkname)
        there = self._open(target.rpartition("/")[0] or ".")
        try:
            last = target.rpartition("/")[2]
            if not _same(there, last, parent, name):
                _clear(parent, name)
                os.link(last, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)


def path_of(name: str) -> str:
    """A name of the archive as a path relative to the root; a leading slash means nothing, as for tar(1)."""
    if "\0" in name:
        raise ValueError(f"an entry's name has a NUL in it: {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"an entry leads upwards: {name!r}")
    return "/".join(parts)


def _clear(parent: int, name: str) -> None:
    """Make room for an entry that comes twice; a directory goes only when it is empty."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        os.rmdir(name, dir_fd=parent)


def _same(one: int, first: str, other: int, second: str) -> bool:
    try:
        before, after = (
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            for directory, name in ((one, first), (other, second))
        )
    except FileNotFoundError:
        return False
    return os.path.samestat(before, after)


def _directory(member: tarfile.TarInfo, parent: int, name: str) -> None:
    """A directory that is there already, is kept with what is in it; its time is that of unpacking."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        _own(fd, member)
    finally:
        os.close(fd)


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
    source = tar.extractfile(member)
    assert source is not None, "None only for what is not a regular file"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        while chunk := source.read(_CHUNK):
            _write(fd, chunk)
        os.ftruncate(fd, member.size)
        _own(fd, member)
        os.utime(fd, ns=times_of(member))
    finally:
        os.close(fd)


def _write(fd: int, chunk: bytes) -> None:
    """Write, or leave a hole where a whole chunk is zeros."""
    if chunk == bytes(len(chunk)):
        os.lseek(fd, len(chunk), os.SEEK_CUR)
        return
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]


def _own(fd: int, member: tarfile.TarInfo) -> None:
    """Owner first: chown(2) clears setuid bits and file capabilities."""
    os.fchown(fd, member.uid, member.gid)
    os.fchmod(fd, stat.S_IMODE(member.mode))
    for key, value in member.pax_headers.items():
        name = key.removeprefix(_XATTR)
        if name != key and may_set(name):
            os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))


def _own_name(member: tarfile.TarInfo, parent: int, name: str) -> None:
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    os.chmod(name, stat.S_IMODE(member.mode), dir_fd=parent)
    os.utime(name, ns=times_of(member), dir_fd=parent)


def may_set(attribute: str) -> bool:
    """What an archive may say of a file; overlayfs's own attributes could join layers that are not its."""
    if attribute.startswith("user."):
        return not attribute.startswith("user.overlay.")
    return attribute == "security.capability"


def times_of(member: tarfile.TarInfo) -> tuple[int, int]:
    """Access and change time in nanoseconds, within what every file system takes."""
    seconds = min(max(float(member.mtime), 0.0), float(0xFFFFFFFF))
    digits = member.pax_headers.get("mtime", "").partition(".")[2][:9]  # what a float cannot hold
    exact = digits.isascii() and digits.isdigit()
    time = int(seconds) * 1_000_000_000 + int(digits.ljust(9, "0")) if exact else int(seconds * 1_000_000_000)
    return time, time
