"""Files in and out of a container as a tar stream; both ends run where the files are.

The end inside is called in the container's own mount namespace, where its root is the root: whatever links are
planted there, they lead nowhere else. The end on the host takes what comes from a container for hostile. Neither
looks up names of users or modules (:meth:`pycore.launch.request.Request.function`).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import IO, cast

from pycore.errors import PycoreError
from pycore.linux import libc, tarstream, untar
from pycore.linux.tarstream import Entry, Kind

BLOCK = 512
_CHUNK = 1 << 20
_MAX_EXTENTS = 4096
"""Pieces of a file with holes; one with more is packed with its smaller holes filled."""
_VIRTUAL = {0x9FA0, 0x62656572, 0x1CD1, 0x27E0EB, 0x63677270, 0x19800202}
"""proc, sysfs, devpts, cgroup, cgroup2 and mqueue (statfs(2)): not files, so they are left out when met on the way."""
_XATTR = "SCHILY.xattr."
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# -- packing ---------------------------------------------------------------------------------------------


def pack(path: str, name: str, follow: str = "") -> int:
    """Write a file or a directory to standard output, under another name; ``follow`` a link, unless empty.

    For the end inside. Raises OSError.
    """
    left = Packer(1).pack(path, name, bool(follow))
    for each in left:
        _say(f"{each}: a device or a socket: left out\n")
    return 0


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode("utf-8", "surrogateescape"))


class Packer:
    """Writes a stream to a descriptor."""

    def __init__(self, out: int) -> None:
        self._out = out
        self._linked: dict[tuple[int, int], str] = {}
        self._left: list[str] = []
        self.size = 0
        """Bytes of files, so far."""

    def pack(self, path: str, name: str, follow: bool) -> list[str]:
        """Write all of a path, under a name, and the end mark; what was left out. Raises OSError."""
        base, place = _directory_of(path, follow)
        try:
            info = os.stat(place, dir_fd=base, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                self._tree(base, place, name)
            else:
                with _named(path):
                    self._leaf(base, place, name, info)
        finally:
            os.close(base)
        self._write(bytes(2 * BLOCK))
        return self._left

    def _tree(self, base: int, place: str, name: str) -> None:
        """Directory by directory, each opened by its way from the top."""
        top = os.open(place, _DIRECTORY, dir_fd=base)
        try:
            waiting = [""]
            while waiting:
                way = waiting.pop()
                with _named(f"{name}/{way}"), _opened(top, way) as directory:
                    waiting += reversed(self._directory(directory, name, way))
        finally:
            os.close(top)

    def _directory(self, directory: int, name: str, way: str) -> list[str]:
        """One directory and the files in it; the ways to the directories in it."""
        self._header(_join(name, way), os.fstat(directory), tarfile.DIRTYPE, xattrs_of=directory)
        if way and libc.filesystem_type(directory) in _VIRTUAL:
            return []
        found: list[str] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                inner = f"{way}/{entry.name}" if way else entry.name
                with _named(_join(name, inner)), contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    info = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        found.append(inner)
                    else:
                        self._leaf(directory, entry.name, _join(name, inner), info)
        return sorted(found)

    def _leaf(self, directory: int, place: str, name: str, info: os.stat_result) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO):
            self._left.append(name)
            return
        first = self._linked.setdefault((info.st_dev, info.st_ino), name) if info.st_nlink > 1 else name
        if first != name:
            self._header(name, info, tarfile.LNKTYPE, link=first)
        elif kind == stat.S_IFLNK:
            self._header(name, info, tarfile.SYMTYPE, link=os.readlink(place, dir_fd=directory))
        elif kind == stat.S_IFIFO:
            self._header(name, info, tarfile.FIFOTYPE)
        else:
            self._file(directory, place, name)

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
                self._header(name, info, tarfile.REGTYPE, size=info.st_size, xattrs_of=fd)
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
        self._header(name, info, tarfile.REGTYPE, size=size, xattrs_of=fd, more=more)
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
        self, name: str, info: os.stat_result, kind: bytes, *, size: int = 0, link: str = "", xattrs_of: int = -1,
        more: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, size, link
        member.mode, member.uid, member.gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
        seconds, rest = divmod(info.st_mtime_ns, 1_000_000_000)
        member.mtime = seconds
        member.pax_headers = {"mtime": f"{seconds}.{rest:09}"} if rest and seconds >= 0 else {}
        member.pax_headers |= _attributes(xattrs_of) | (more or {})
        self._write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

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
    with _named(path):
        return os.open(head or ("/" if path.startswith("/") else "."), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name


def _join(name: str, way: str) -> str:
    return f"{name}/{way}" if way else name


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
def _named(path: str) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            error.filename, error.filename2 = path, None
        raise


def _attributes(fd: int) -> dict[str, str]:
    """The extended attributes that a stream carries."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(fd) if fd >= 0 else ():
            if untar.may_set(name):
                found[_XATTR + name] = os.getxattr(fd, name).decode("utf-8", "surrogateescape")
    return found


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


# -- unpacking -------------------------------------------------------------------------------------------


def unpack(path: str, keep_owners: str = "") -> int:
    """Put what comes from standard input to a path; owned by root unless ``keep_owners``. For the end inside.

    Raises OSError, PycoreError.
    """
    with open(0, "rb", closefd=False) as stream:
        Unpacker(path, None if keep_owners else (0, 0)).unpack(stream)
    return 0


def unpack_into(path: str, keep_owners: str = "") -> int:
    """The same for a stream of somebody else's making: its entries go into a directory, as they are called."""
    with open(0, "rb", closefd=False) as stream:
        Unpacker(path, None if keep_owners else (0, 0), names=True).unpack(stream)
    return 0


@dataclass
class Unpacker:
    """Puts a stream to a path, by Docker's rules: into a directory that is there, else under the path's own name.

    The stream may be hostile: nothing is made, changed or removed but below that directory, or under that name.
    """

    path: str
    owner: tuple[int, int] | None
    """Whose all of it is to be; None for the owners that the stream names. With those go set-user-id bits and
    capabilities: a file keeps such powers only together with its owner."""
    names: bool = False
    """Whether the path must be a directory, and the stream's names are those to be made in it."""
    watch: Callable[[], None] = lambda: None
    """Called now and then; may raise to end it."""
    size: int = 0
    """Bytes of files, so far."""

    def unpack(self, stream: IO[bytes]) -> None:
        """Raises OSError, or PycoreError for a stream that is not sound or does not fit."""
        try:
            self._unpack(stream)
        except tarstream.DAMAGED as error:
            raise PycoreError(f"the stream is damaged, or no tar stream: {error or type(error).__name__}") from error
        except tarstream.Refused as error:
            raise PycoreError(f"the stream is refused: {error}") from error

    def _unpack(self, stream: IO[bytes]) -> None:
        place: _Place | None = None
        if self.names:
            place = _Place(self._directory_that_is_there(), "", "")
        try:
            for content, entry in tarstream.members(stream, compressed=self.names):
                self.watch()
                if place is None:
                    place = self._choose(entry)
                name = place.name_of(entry.name)
                if name is None:
                    raise ValueError(f"an entry is called {entry.name!r}")
                self._add(place, content, entry, name)
            if place:
                place.tree.finish()
        finally:
            if place:
                place.close()

    def _directory_that_is_there(self) -> int:
        directory = _existing_directory(self.path)
        if directory is None:
            raise PycoreError(f"{self.path}: not a directory, or not there")
        return directory

    def _choose(self, first: Entry) -> _Place:
        """Where all of it goes, by what comes first."""
        directory = _existing_directory(self.path)
        if first.name == ".":
            if directory is None:
                directory = self._make_directory(first)
            return _Place(directory, "", "")
        base = untar.path_of(first.name)
        if not base or "/" in base:
            raise ValueError(f"the first entry is called {first.name!r}")
        if directory is not None:
            return _Place(directory, base, base)
        head, name = self._named_place(first)
        return _Place(head, base, name)

    def _named_place(self, first: Entry) -> tuple[int, str]:
        """The directory above the path, and the name in it; of a link, those of the file that it leads to."""
        path = os.path.realpath(self.path)
        if self.path.endswith("/") and first.kind is not Kind.DIRECTORY:
            raise PycoreError(f"{self.path}: there is no such directory")
        if os.path.lexists(path) and first.kind is Kind.DIRECTORY:
            raise PycoreError(f"{self.path}: a directory cannot be copied to a file")
        head, _, name = path.rpartition("/")
        with _named(head or "/"):
            return os.open(head or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name

    def _make_directory(self, first: Entry) -> int:
        """The content of a directory goes to a path that is not there: it becomes one."""
        if os.path.lexists(self.path) or first.kind is not Kind.DIRECTORY:
            raise PycoreError(f"{self.path}: a directory cannot be copied to a file")
        with _named(self.path):
            os.mkdir(self.path)
            return os.open(self.path, _DIRECTORY)

    def _add(self, place: _Place, content: tarstream.Content, entry: Entry, name: str) -> None:
        if not name:  # the directory itself, which was there before, or was made for it
            return
        if entry.kind is Kind.HARD_LINK:
            linked = place.name_of(entry.link)
            if not linked:
                raise ValueError(f"{entry.name!r} is a link to what is not in the stream")
            entry.link = linked
        self._check(place, entry, name)
        entry.name = name
        if self.owner is not None:
            entry.uid, entry.gid = self.owner
            entry.mode &= 0o1777
            entry.xattrs = {key: value for key, value in entry.xattrs.items() if not key.startswith("security.")}
        place.tree.add(content, entry)
        self.size += entry.size

    @staticmethod
    def _check(place: _Place, entry: Entry, name: str) -> None:
        """A directory does not take the place of anything else, nor the other way round."""
        try:
            there = libc.openat2(place.directory, name, os.O_PATH | os.O_NOFOLLOW, follow=False)
        except OSError:
            return
        try:
            is_directory = stat.S_ISDIR(os.fstat(there).st_mode)
        finally:
            os.close(there)
        if is_directory != (entry.kind is Kind.DIRECTORY):
            what = "a directory" if is_directory else "not a directory"
            raise PycoreError(f"{name}: it is there already, and {what}")


@dataclass
class _Place:
    """Where a stream goes."""

    directory: int
    base: str
    """What the stream calls the one thing that it brings; empty where it brings what is in a directory."""
    name: str
    """What that is called here."""

    def __post_init__(self) -> None:
        self.tree = untar.Tree(self.directory, ours=False)

    def close(self) -> None:
        self.tree.close()
        os.close(self.directory)

    def name_of(self, name: str) -> str | None:
        """What an entry is called below the directory; None for one that does not belong to the stream's one thing."""
        path = untar.path_of(name)
        if not self.base:
            return path
        first, slash, rest = path.partition("/")
        return f"{self.name}{slash}{rest}" if first == self.base else None


def _existing_directory(path: str) -> int | None:
    """The directory at a path, also behind a link; None where there is none."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None


class Watched(io.RawIOBase):
    """A stream that is read when there is something to read, after a look at who waits for it."""

    def __init__(self, fd: int, wait: Callable[[int], None]) -> None:
        """``wait`` returns when the descriptor is readable, or raises."""
        super().__init__()
        self._fd, self._wait = fd, wait

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._wait(self._fd)
        return os.readv(self._fd, [buffer])


def watched(fd: int, wait: Callable[[int], None]) -> IO[bytes]:
    """A buffered stream of a descriptor, which stays the caller's."""
    return cast(IO[bytes], io.BufferedReader(Watched(fd, wait), _CHUNK))
