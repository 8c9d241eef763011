"""Writing a tree as a tar stream, in POSIX's format (pax(1)) with GNU tar's way of writing files with holes.

Of the same tree come the same bytes. It is read through descriptors, each opened by its way from the top, and no link
is followed: whoever may write to it meanwhile can spoil the stream, not lead it out of the tree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator

from pycore.errors import PycoreError
from pycore.linux import layered, libc, untar
from pycore.linux.tarheader import header
from pycore.linux.tarstream import BLOCK, Entry, Kind
from pycore.linux.untar import OPAQUE, WHITEOUT

_CHUNK = 1 << 20
_MAX_EXTENTS = 4096
"""Pieces of a file with holes; one with more is packed with its smaller holes filled."""
_VIRTUAL = {0x9FA0, 0x62656572, 0x1CD1, 0x27E0EB, 0x63677270, 0x19800202}
"""proc, sysfs, devpts, cgroup, cgroup2 and mqueue (statfs(2)): not files, so they are left out when met on the way."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {stat.S_IFCHR: Kind.CHARACTER, stat.S_IFBLK: Kind.BLOCK}


class Packer:
    """Writes a stream to a descriptor."""

    def __init__(self, out: int, *, devices: bool = False, layer: bool = False) -> None:
        """``devices`` says whether device nodes go with the rest. Of a ``layer``, what overlayfs keeps as whiteouts and
        opaque directories is written in an image's words.
        """
        self._out, self._devices, self._layer = out, devices or layer, layer
        self._linked: dict[tuple[int, int], str] = {}
        self._left: list[str] = []
        self.size = 0
        """Bytes of files, so far."""

    def pack_tree(self, path: str) -> list[str]:
        """Write all that is in a directory, called as it is there, and the end mark; what was left out. The path may be
        that of a descriptor in /proc, also of a mount that is in no place.

        Raises OSError, and PycoreError for a layer with a file that no archive of a layer can have.
        """
        self._tree(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), "")
        self._write(bytes(2 * BLOCK))
        return self._left

    def pack(self, path: str, name: str, follow: bool) -> list[str]:
        """Write all of a path, under a name, and the end mark; what was left out. Raises OSError."""
        base, place = _directory_of(path, follow)
        try:
            info = os.stat(place, dir_fd=base, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                self._tree(os.open(place, _DIRECTORY, dir_fd=base), name)
            else:
                with named(path):
                    self._leaf(base, place, name, info)
        finally:
            os.close(base)
        self._write(bytes(2 * BLOCK))
        return self._left

    def _tree(self, top: int, name: str) -> None:
        """Directory by directory, each opened by its way from the top, which is closed at the end."""
        try:
            waiting = [""]
            while waiting:
                way = waiting.pop()
                with named(f"{name}/{way}"), _opened(top, way) as directory:
                    waiting += reversed(self._directory(directory, name, way))
        finally:
            os.close(top)

    def _directory(self, directory: int, name: str, way: str) -> list[str]:
        """One directory and the files in it; the ways to the directories in it."""
        info = os.fstat(directory)
        self._header(_join(name, way) or ".", info, Kind.DIRECTORY, xattrs_of=directory)
        if way and libc.filesystem_type(directory) in _VIRTUAL:
            return []
        if self._layer and layered.is_opaque(directory):
            self._mark(_join(_join(name, way), OPAQUE))
        found: list[str] = []
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
        for each in names:
            inner = f"{way}/{each}" if way else each
            with named(_join(name, inner)), contextlib.suppress(FileNotFoundError):  # gone meanwhile
                info = os.stat(each, dir_fd=directory, follow_symlinks=False)
                if self._layer and each.startswith(WHITEOUT):
                    raise PycoreError(f"{inner} is called as if it were no file: an image cannot have it")
                if stat.S_ISDIR(info.st_mode):
                    found.append(inner)
                else:
                    self._leaf(directory, each, _join(name, inner), info)
        return found

    def _leaf(self, directory: int, place: str, name: str, info: os.stat_result) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if self._layer and layered.is_whiteout(info):
            head, slash, base = name.rpartition("/")
            self._mark(f"{head}{slash}{WHITEOUT}{base}")
            return
        if kind == stat.S_IFSOCK or (kind in _DEVICES and not self._devices):
            self._left.append(name)
            return
        first = self._linked.setdefault((info.st_dev, info.st_ino), name) if info.st_nlink > 1 else name
        if first != name:
            self._header(name, info, Kind.HARD_LINK, link=first)
        elif kind == stat.S_IFLNK:
            self._header(name, info, Kind.LINK, link=os.readlink(place, dir_fd=directory))
        elif kind == stat.S_IFREG:
            self._file(directory, place, name)
        else:
            self._header(name, info, _DEVICES.get(kind, Kind.FIFO))

    def _mark(self, name: str) -> None:
        """An empty file that says something by its name."""
        self._write(header(Entry(name, Kind.FILE, 0o600, 0, 0, 0, 0), 0))

    def _file(self, directory: int, place: str, name: str) -> None:
        """O_NONBLOCK, should it be a pipe by now; the link that it might be is refused."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(place, flags, dir_fd=directory)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.ESTALE, "it is another file now")
            extents = _extents(fd, info)
            if extents is None:
                self._header(name, info, Kind.FILE, size=info.st_size, xattrs_of=fd)
                self._content(fd, [(0, info.st_size)])
            else:
                self._sparse(name, info, fd, extents)
        finally:
            os.close(fd)

    def _sparse(self, name: str, info: os.stat_result, fd: int, extents: list[tuple[int, int]]) -> None:
        """A file with holes, as GNU tar writes it in its format 1.0."""
        text = "".join(f"{number}\n" for number in (len(extents), *(each for extent in extents for each in extent)))
        table = text.encode() + bytes(-len(text) % BLOCK)
        more = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
            "GNU.sparse.name": name, "GNU.sparse.realsize": str(info.st_size),
        }  # fmt: skip
        size = len(table) + sum(length for _, length in extents)
        self._header(name, info, Kind.FILE, size=size, xattrs_of=fd, more=more)
        self._write(table)
        self._content(fd, extents)

    def _content(self, fd: int, extents: list[tuple[int, int]]) -> None:
        """The bytes, moved by the kernel; a file that was cut short meanwhile is filled up."""
        written = 0
        for start, length in extents:
            place, end = start, start + length
            while place < end:
                sent = os.sendfile(self._out, fd, place, min(_CHUNK, end - place))
                if not sent:
                    self._zeros(end - place)
                place = place + sent if sent else end
                self.size += sent
            written += length
        self._zeros(-written % BLOCK)

    def _zeros(self, count: int) -> None:
        while count > 0:
            self._write(bytes(min(count, _CHUNK)))
            count -= _CHUNK

    def _header(
        self, name: str, info: os.stat_result, kind: Kind, *, size: int = 0, link: str = "", xattrs_of: int = -1,
        more: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        entry = Entry(
            name, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, size, info.st_mtime_ns, link,
            xattrs=_attributes(xattrs_of),
        )  # fmt: skip
        if kind in (Kind.CHARACTER, Kind.BLOCK):
            entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        self._write(header(entry, size, more))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]


def _directory_of(path: str, follow: bool) -> tuple[int, str]:
    """The directory that a path lies in, and its name there.

    A link at its end is followed where that is asked for, or where the path ends with a slash.
    """
    path = path or "."
    if follow or path.endswith(("/", "/.", "/..")) or path in (".", ".."):
        path = os.path.realpath(path, strict=True)
        if path == "/":
            return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "."
    head, _, name = path.rpartition("/")
    with named(path):
        return os.open(head or ("/" if path.startswith("/") else "."), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name


def _join(name: str, way: str) -> str:
    return f"{name}/{way}" if name and way else name or way


@contextlib.contextmanager
def _opened(top: int, way: str) -> Generator[int, None, None]:
    """A directory by its way from the top; whoever swaps it for a link meanwhile leads us to nothing."""
    directory = os.dup(top)
    try:
        for part in way.split("/") if way else ():
            inner = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


@contextlib.contextmanager
def named(path: str) -> Generator[None, None, None]:
    """An OSError tells of this path, whatever the call had."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            error.filename, error.filename2 = path, None
        raise


def _attributes(fd: int) -> dict[str, bytes]:
    """The extended attributes that a stream carries."""
    try:
        names = [name for name in os.listxattr(fd) if untar.may_set(name)] if fd >= 0 else []
        return {name: os.getxattr(fd, name) for name in names}
    except OSError:  # a file system without them
        return {}


def _extents(fd: int, info: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file has data, as (start, length), its end included; None where it has no holes."""
    if info.st_blocks * 512 >= info.st_size:
        return None
    found: list[tuple[int, int]] = []
    end = 0
    while end < info.st_size and len(found) < _MAX_EXTENTS:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return None
        end = min(os.lseek(fd, start, os.SEEK_HOLE), info.st_size)
        found.append((start, end - start))
    if len(found) == _MAX_EXTENTS:
        start = found[-1][0]
        found[-1] = (start, info.st_size - start)
    return [*found, (info.st_size, 0)]
