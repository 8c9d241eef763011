"""A log on disk: numbered segments, each an index and up to two files of data, one for each stream.

    00000001.index    a header, then an entry per read: when, which stream, where its bytes are
    00000001.out      the bytes of standard output, as they came
    00000001.err      the bytes of standard error

Data is written before its entry, so that an entry never points at what is not there; what a killed writer left
without an entry is the end of one file, and so of a known stream. A full segment is followed by one of the next
number, and the oldest goes: nothing is renamed, so a reader keeps its place by number.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pycore.logs import CHUNK, STDERR, STDOUT

HEADER = struct.Struct("<8sIIQ")
"""Magic word, version, streams that are within a line at the segment's start (bit 1 << stream), time of its making."""
ENTRY = struct.Struct("<QQII")
"""Time in nanoseconds since 1970, offset, length, stream; for the stream NOTE the offset is a number of lost bytes."""
MAGIC, VERSION = b"pycorlog", 1
SUFFIXES = {STDOUT: "out", STDERR: "err"}

assert HEADER.size == ENTRY.size


@dataclass(frozen=True)
class Entry:
    """What one read brought, and where it is."""

    time: int
    offset: int
    length: int
    stream: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def numbers(directory: Path) -> list[int]:
    """The numbers of the segments that are there, oldest first; none where there is no log."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-6]) for name in names if name.endswith(".index") and name[:-6].isdigit())


def path(directory: Path, number: int, suffix: str) -> str:
    """A file of a segment."""
    return f"{directory}/{number:08}.{suffix}"


def size_of(directory: Path, number: int) -> int:
    """Bytes of a segment, data and index."""
    total = 0
    for suffix in ("index", *SUFFIXES.values()):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(path(directory, number, suffix)).st_size
    return total


def delete_up_to(directory: Path, last: int) -> None:
    """Remove all segments up to a number, and what is left of some; the index first, then nobody looks for the data."""
    for name in sorted(os.listdir(directory), key=lambda name: not name.endswith(".index")):
        number, _, suffix = name.partition(".")
        if number.isdigit() and int(number) <= last and suffix in ("index", *SUFFIXES.values()):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / name)


class Segment:
    """A segment to read from. What is removed meanwhile stays readable as far as it is open."""

    def __init__(self, directory: Path, number: int) -> None:
        """Raises FileNotFoundError where it is gone."""
        self.directory, self.number = directory, number
        self._data: dict[int, int] = {}
        self._index = os.open(path(directory, number, "index"), os.O_RDONLY | os.O_CLOEXEC)
        for stream in SUFFIXES:
            self._open(stream)
        self._header: tuple[bytes, int, int, int] = (b"", 0, 0, 0)

    def _open(self, stream: int) -> int:
        if stream not in self._data:
            with contextlib.suppress(FileNotFoundError):
                name = path(self.directory, self.number, SUFFIXES[stream])
                self._data[stream] = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        return self._data.get(stream, -1)

    def close(self) -> None:
        for fd in (self._index, *self._data.values()):
            os.close(fd)

    @property
    def known(self) -> bool:
        """Whether its header is there, and says that this is such a file: it may have been made this very moment."""
        if not self._header[1]:
            header = os.pread(self._index, HEADER.size, 0)
            if len(header) == HEADER.size:
                self._header = HEADER.unpack(header)
        return self._header[:2] == (MAGIC, VERSION)

    @property
    def foreign(self) -> bool:
        """Whether its header is whole, and another version's."""
        return not self.known and self._header[1] != 0

    @property
    def within(self) -> int:
        """The streams that are within a line at the segment's start, as its header has them."""
        return self._header[2] if self.known else 0

    # -- the index ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return max(0, os.fstat(self._index).st_size // ENTRY.size - 1) if self.known else 0

    def entries(self, first: int, number: int = 512) -> list[Entry]:
        """Up to so many entries from one on; a torn one at the end is not there yet."""
        if not self.known:
            return []
        data = os.pread(self._index, number * ENTRY.size, HEADER.size + first * ENTRY.size)
        return [Entry(*fields) for fields in ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size])]

    def place(self, time: int, *, after: bool = False) -> int:
        """The number of the first entry that is not older, or with ``after`` of the first that is newer."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self.entries(middle, 1)[0].time
            if found < time or (after and found == time):
                low = middle + 1
            else:
                high = middle
        return low

    # -- the data ----------------------------------------------------------------------------------------

    def size(self, stream: int) -> int:
        fd = self._open(stream)
        return os.fstat(fd).st_size if fd >= 0 else 0

    def modified(self, stream: int) -> int:
        """When a stream was last written to, in nanoseconds since 1970."""
        return os.fstat(self._open(stream)).st_mtime_ns

    def read(self, stream: int, offset: int, length: int) -> bytes:
        fd = self._open(stream)
        return os.pread(fd, length, offset) if fd >= 0 else b""

    def pieces(self, stream: int, offset: int, end: int) -> Iterator[bytes]:
        """A range in pieces, as far as it is there."""
        while offset < end and (data := self.read(stream, offset, min(CHUNK, end - offset))):
            offset += len(data)
            yield data

    def pieces_backwards(self, stream: int, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The same from its end, each with its place."""
        end = min(end, self.size(stream))
        while end > offset:
            start = max(offset, end - CHUNK)
            yield start, self.read(stream, start, end - start)
            end = start

    def begins_with_line(self, stream: int) -> bool:
        """Whether the first byte of a stream's data is that of a line, rather than of the rest of one."""
        return not self.within >> stream & 1

    def line_start(self, stream: int, offset: int) -> int:
        """The first place from one on at which a line starts; -1 where none is near."""
        if self.begins_with_line(stream) if offset == 0 else self.read(stream, offset - 1, 1) == b"\n":
            return offset
        found = self.read(stream, offset, CHUNK).find(b"\n")
        return -1 if found < 0 else offset + found + 1
