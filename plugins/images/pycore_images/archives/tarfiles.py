"""The files of a tar archive where they lie: it is gone through once, from header to header, and no content is read."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Generator
from dataclasses import dataclass

from pycore.errors import NotFound
from pycore.linux import tarstream
from pycore.linux.tarstream import Content, Entry, Kind

from pycore_images.archives.files import Segment
from pycore_images.content import Damaged, Stream

MAX_ENTRIES = 200_000
"""Of an archive with images: a hundred images of five hundred layers have fewer."""
_MAX_LINKS = 8
"""Links that lead to links."""


@dataclass(frozen=True)
class _Place:
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
        self._entries: dict[str, _Place] = {}
        try:
            for content, entry in tarstream.members(Segment(fd, 0, os.fstat(fd).st_size), compressed=False):
                self._note(content, entry)
        except (*tarstream.DAMAGED, tarstream.Refused) as error:
            raise Damaged(f"{name} is damaged, or no tar archive: {error or type(error).__name__}") from error

    def size(self, name: str) -> int:
        return self._entry(name).size

    @contextlib.contextmanager
    def open(self, name: str, offset: int = 0) -> Generator[Stream, None, None]:
        entry = self._entry(name)
        yield Segment(self._fd, entry.offset + offset, entry.offset + entry.size)

    def _note(self, content: Content, entry: Entry) -> None:
        name = _normal(entry.name)
        if entry.kind is Kind.DIRECTORY or not name:
            return
        if len(self._entries) >= MAX_ENTRIES:
            raise tarstream.Refused(f"it has more than {MAX_ENTRIES} entries")
        self._entries[name] = _place_of(content, entry, name, twice=name in self._entries)

    def _entry(self, name: str) -> _Place:
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


def _place_of(content: Content, entry: Entry, name: str, twice: bool) -> _Place:
    if entry.kind in (Kind.LINK, Kind.HARD_LINK):
        above = posixpath.dirname(name) if entry.kind is Kind.LINK else ""
        target = _normal(posixpath.join(above, entry.link))
        return _Place(0, 0, target, "" if target else "a link that leads out of it", twice)
    what = "" if entry.kind is Kind.FILE else entry.kind.value
    if not what and not content.is_whole(entry.size):
        what = "stored with holes, which is not read"
    return _Place(content.place, entry.size, what=what, twice=twice)


def _normal(name: str) -> str:
    """A name as it is asked for; empty where it leads out of the archive, or is the archive's own root."""
    path = posixpath.normpath(name.lstrip("/"))
    return "" if path == "." or path.split("/", 1)[0] == ".." or "\0" in path else path
