"""Writes a log: the kernel moves the bytes from the pipe to the file, Python notes when and where."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import termios
import time
from pathlib import Path

from pycore.logs import NOTE

from pycore_logging.segments import (
    ENTRY,
    HEADER,
    MAGIC,
    SUFFIXES,
    VERSION,
    Entry,
    Segment,
    delete_up_to,
    numbers,
    path,
    size_of,
)

_RESERVE = 3 * ENTRY.size
"""Room that is left in a segment for the entries of what is written last."""
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_SLACK = 1_000_000_000
"""A clock that is set back by more nanoseconds gets a new segment, so that times within one only grow."""


class FileSink:
    """The end of a log: a :class:`pycore.logs.PipeSink`. What an earlier one left unfinished is finished first.

    Files are made with the first output: many containers never say a word.
    """

    def __init__(self, directory: Path, max_size: int, max_files: int) -> None:
        self.directory, self.max_size, self.max_files = directory, max_size, max_files
        self._segment: _Growing | None = None
        self._lost = 0
        """Bytes that could not be kept, as long as that is not in the log."""
        if numbers(directory):
            with contextlib.suppress(OSError):  # a full disk: the next output tries again
                self._segment = self._first()
                self._trim(self._segment)

    def splice(self, stream: int, pipe: int, limit: int) -> int:
        if not (self._segment and self._segment.has(stream)) and not _queued(pipe):
            # Its end, most likely: a stream on which nothing came gets no file.
            data = os.read(pipe, 1)
            return self.write(stream, data) if data else 0
        segment = self._roomy()
        target, offset = segment.data(stream), segment.sizes[stream]
        limit = min(limit, self.max_size - segment.total())
        moved = os.splice(pipe, target, limit, offset_dst=offset, flags=_FLAGS)
        if moved:
            segment.sizes[stream] += moved
            self._note(segment)
        return moved

    def recent(self, stream: int, length: int) -> bytes:
        assert self._segment
        return os.pread(self._segment.data(stream), length, self._segment.sizes[stream] - length)

    def write(self, stream: int, data: bytes) -> int:
        kept = 0
        try:
            while kept < len(data):
                segment = self._roomy()
                piece = data[kept : kept + self.max_size - segment.total()]
                written = os.pwrite(segment.data(stream), piece, segment.sizes[stream])
                segment.sizes[stream] += written
                kept += written
                self._note(segment)
        except OSError:
            self._lost += len(data) - kept
            if not kept:
                raise
        return kept

    def close(self) -> None:
        if self._segment:
            self._note(self._segment)
            self._segment.close()

    def _note(self, segment: _Growing) -> None:
        """Write down what has come. On a full disk that waits: the next entry speaks for all that has none yet."""
        with contextlib.suppress(OSError):
            segment.note(self._lost)
            self._lost = 0

    def _roomy(self) -> _Growing:
        """The segment that is written to, with room in it."""
        segment = self._segment = self._segment or self._first()
        if segment.total() < self.max_size and segment.last - time.time_ns() < _SLACK:
            return segment
        fresh = self._segment = _Growing(self.directory, segment.number + 1, segment.within())
        segment.close()
        self._trim(fresh)
        return fresh

    def _first(self) -> _Growing:
        """Where an earlier writer was, or a beginning."""
        existing = numbers(self.directory)
        if existing:
            segment = Segment(self.directory, existing[-1])
            with contextlib.closing(segment):
                foreign = segment.foreign  # it is read now, not when the segment is closed
            return _Growing(self.directory, existing[-1] + foreign, 0 if foreign else None)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _Growing(self.directory, 1, 0)

    def _trim(self, newest: _Growing) -> None:
        """Remove the oldest segments: as many as there are too many, also by their size if that has been lowered."""
        total = 0
        for number in reversed(numbers(self.directory)):
            total += size_of(self.directory, number) if number != newest.number else self.max_size
            too_many = number <= newest.number - self.max_files or total > self.max_size * self.max_files
            if too_many and number != newest.number:
                delete_up_to(self.directory, number)
                return


def _queued(pipe: int) -> int:
    """Bytes that are in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


class _Growing:
    """The segment that is written to. With ``within`` it is made; without, it is there and gone on with."""

    def __init__(self, directory: Path, number: int, within: int | None = None) -> None:
        self.directory, self.number = directory, number
        self.sizes = dict.fromkeys(SUFFIXES, 0)
        """How far each stream's data goes, and below how far it has entries."""
        self._indexed = dict.fromkeys(SUFFIXES, 0)
        self._within = within or 0
        self._data: dict[int, int] = {}
        self._entries = 0
        self.last = 0
        """Time of the last entry."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._index = os.open(path(directory, number, "index"), flags, 0o600)
        try:
            if within is None:
                self._resume()
            else:
                self._write_header()
        except BaseException:
            self.close()
            if within is not None:
                os.unlink(path(directory, number, "index"))
            raise

    def _write_header(self) -> None:
        os.pwrite(self._index, HEADER.pack(MAGIC, VERSION, self._within, time.time_ns()), 0)

    def _resume(self) -> None:
        """Find the end, whatever the writer before us was doing when it was killed, or when the power failed."""
        segment = Segment(self.directory, self.number)
        try:
            if not segment.known:
                self._write_header()
            self._within = segment.within
            self.sizes = {stream: segment.size(stream) for stream in SUFFIXES}
            self._entries = len(segment)
            self._find_ends(segment)
            for stream in SUFFIXES:
                if self.sizes[stream] > self._indexed[stream]:
                    self.last = max(self.last, segment.modified(stream))
                    self.note(0, self.last)
        finally:
            segment.close()

    def _find_ends(self, segment: Segment) -> None:
        """Go back through the index to the last entry of each stream; those of data that is not there are dropped."""
        wanted = {stream for stream, size in self.sizes.items() if size}
        stop = self._entries
        while stop and (wanted or not self.last):
            start = max(0, stop - 512)
            for number, entry in reversed(list(enumerate(segment.entries(start, stop - start), start))):
                if entry.stream in SUFFIXES and entry.end > self.sizes[entry.stream]:
                    self._entries = number
                    continue
                self.last = max(self.last, entry.time)
                if entry.stream in wanted:
                    wanted.discard(entry.stream)
                    self._indexed[entry.stream] = entry.end
            stop = start

    def data(self, stream: int) -> int:
        """The file of a stream, made when it is first asked for."""
        if stream not in self._data:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._data[stream] = os.open(path(self.directory, self.number, SUFFIXES[stream]), flags, 0o600)
        return self._data[stream]

    def has(self, stream: int) -> bool:
        """Whether a stream has a file."""
        return stream in self._data or bool(self.sizes[stream])

    def total(self) -> int:
        """Bytes of the segment: data, index, and the entries that are still to be written."""
        return sum(self.sizes.values()) + (1 + self._entries) * ENTRY.size + _RESERVE

    def note(self, lost: int, now: int = 0) -> None:
        """Write entries for what has none; and that something was lost. Raises OSError on a full disk."""
        now = max(self.last, now or time.time_ns())
        entries = [Entry(now, lost, 0, NOTE)] if lost else []
        for stream, size in self.sizes.items():
            start = self._indexed[stream]
            if size > start:
                entries.append(Entry(now, start, size - start, stream))
        if not entries:
            return
        packed = b"".join(ENTRY.pack(entry.time, entry.offset, entry.length, entry.stream) for entry in entries)
        written = os.pwrite(self._index, packed, (1 + self._entries) * ENTRY.size)
        if written < len(packed):  # the disk is full; what is there of them will be written over
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._entries += len(entries)
        self._indexed = dict(self.sizes)
        self.last = now

    def within(self) -> int:
        """The streams that have a line without an end, as the next segment's header wants them."""
        bits = 0
        for stream, size in self.sizes.items():
            if size:
                bits |= (os.pread(self.data(stream), 1, size - 1) != b"\n") << stream
            else:
                bits |= self._within & 1 << stream
        return bits

    def close(self) -> None:
        for fd in (self._index, *self._data.values()):
            os.close(fd)
