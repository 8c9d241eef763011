"""Files in and out of a container as a tar stream; both ends run where the files are.

The end inside is called in the container's own mount namespace, where its root is the root: whatever links are
planted there, they lead nowhere else. The end on the host takes what comes from a container for hostile. Neither
looks up names of users or modules (:meth:`pycore.launch.request.Request.function`).
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, cast

from pycore.errors import PycoreError
from pycore.linux import libc, tarstream, untar
from pycore.linux.packing import Packer, named
from pycore.linux.tarstream import Entry, Kind

_CHUNK = 1 << 20
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
        with named(head or "/"):
            return os.open(head or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name

    def _make_directory(self, first: Entry) -> int:
        """The content of a directory goes to a path that is not there: it becomes one."""
        if os.path.lexists(self.path) or first.kind is not Kind.DIRECTORY:
            raise PycoreError(f"{self.path}: a directory cannot be copied to a file")
        with named(self.path):
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
