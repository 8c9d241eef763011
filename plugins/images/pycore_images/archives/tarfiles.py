"""The files of a tar archive where they lie: it is gone through once, from header to header, and no content is read."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from pycore.errors import NotFound
from pycore.linux.tarstream import MAX_GLOBAL, MAX_HEADER

from pycore_images.archives.files import Segment
from pycore_images.content import Damaged, Stream

MAX_ENTRIES = 200_000
"""Of an archive with images: a hundred images of five hundred layers have fewer."""
_DAMAGED = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError)
_MAX_LINKS = 8
"""Links that lead to links."""


@dataclass(frozen=True)
class _Entry:
    offset: int
    size: int
    link: str = ""
    """The name that it leads to, where it is a link."""
    what: str = ""
    """What it is, where it is neither a file nor a link."""
    twice: bool = False


class TarFiles:
    """The regular files of an archive that is not compressed; ``fd`` stays the caller's, and is read in any order.

    Links lead to where they would in a directory, but never out of the archive. Of a name that is there twice nobody
    can say what it means, so it is refused when it is asked for. Raises Damaged.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._entries: dict[str, _Entry] = {}
        try:
            for member in _members(fd):
                self._note(member)
        except (*_DAMAGED, _TooLong) as error:
            raise Damaged(f"{name} is damaged, or no tar archive: {error or type(error).__name__}") from error

    def size(self, name: str) -> int:
        return self._entry(name).size

    @contextlib.contextmanager
    def open(self, name: str, offset: int = 0) -> Generator[Stream, None, None]:
        entry = self._entry(name)
        yield Segment(self._fd, entry.offset + offset, entry.offset + entry.size)

    def _note(self, member: tarfile.TarInfo) -> None:
        name = _normal(member.name)
        if member.isdir() or not name:
            return
        if len(self._entries) >= MAX_ENTRIES:
            raise _TooLong(f"it has more than {MAX_ENTRIES} entries")
        self._entries[name] = _entry(member, twice=name in self._entries)

    def _entry(self, name: str) -> _Entry:
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(name)
            if entry is None:
                raise NotFound(f"{self.name} has no {name}")
            if entry.twice:
                raise Damaged(f"{self.name} has two entries of the name {name}")
            if entry.what:
                raise Damaged(f"{name} in {self.name} is {entry.what}")
            if not entry.link:
                return entry
            name = entry.link
        raise Damaged(f"{name} in {self.name} is a link that leads in a circle")


def _entry(member: tarfile.TarInfo, twice: bool) -> _Entry:
    if member.issym():
        target = _normal(posixpath.join(posixpath.dirname(_normal(member.name)), member.linkname))
        return _Entry(0, 0, target, "" if target else "a link that leads out of it", twice)
    if member.islnk():
        target = _normal(member.linkname)
        return _Entry(0, 0, target, "" if target else "a link that leads out of it", twice)
    what = "" if member.isreg() else "no regular file"
    if member.issparse():
        what = "stored with holes, which is not read"
    return _Entry(member.offset_data, member.size, what=what, twice=twice)


def _normal(name: str) -> str:
    """A name as it is asked for; empty where it leads out of the archive, or is the archive's own root."""
    path = posixpath.normpath(name.lstrip("/"))
    return "" if path == "." or path.split("/", 1)[0] == ".." or "\0" in path else path


# -- headers ---------------------------------------------------------------------------------------------


class _TooLong(Exception):
    """The archive asks for more than is looked at."""


def _members(fd: int) -> Iterator[tarfile.TarInfo]:
    window = _Window(fd)
    tar = tarfile.TarFile(fileobj=cast(IO[bytes], window), encoding="utf-8", errors="surrogateescape")
    while (member := tar.next()) is not None:
        if member.size < 0 or (not member.issparse() and member.offset_data + member.size > window.size):
            raise tarfile.ReadError("it ends in the middle" if member.size > 0 else "an entry has a negative size")
        yield member
        cast(Any, tar).members.clear()  # tarfile keeps every entry; the type stubs do not know it
        if len(tar.pax_headers) > MAX_GLOBAL:
            raise _TooLong("its global headers are too long")
        window.allowance = MAX_HEADER
    if window.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark after the last entry")


class _Window:
    """A file as tarfile wants it, with a limit to what one header may take."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, 0
        self.size = os.fstat(fd).st_size
        self.allowance = MAX_HEADER
        """How many bytes may still be read until somebody sets it anew."""
        self.last = b""
        """What was read last."""

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._at - 512:
            raise tarfile.ReadError("an entry points back")
        self._at = position
        return position

    def read(self, size: int) -> bytes:
        self.allowance -= size
        if size < 0 or self.allowance < 0:
            raise _TooLong("an entry's headers are too long")
        self.last = os.pread(self._fd, size, self._at)
        self._at += len(self.last)
        return self.last
