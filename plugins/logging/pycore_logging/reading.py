"""Reads a log: finds its place by bisection, counts lines from the end, goes on with what has come since."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pycore.logs import CHUNK, NOTE, Chunk, Query

from pycore_logging.segments import Entry, Segment, numbers

_LATER = 1 << 62
_ROTATED = b"some output is missing here: it was rotated away before it was read"


class FileReader:
    """One look at a log: a :class:`pycore.logs.LogReader`.

    Holds one segment open, so that what is being read stays although it is rotated away.
    """

    def __init__(self, directory: Path, query: Query) -> None:
        self.directory, self.query = directory, query
        self._segment: Segment | None = None
        self._number = 0
        """The segment in which we are, or were last."""
        self._entry = 0
        self._cut: int | None = None
        """Where in the first entry the first line starts."""
        self._time = 0
        """Of the last entry."""
        self._placed = self._done = self._missed = False
        self._starts: dict[int, int] = {}
        """Where in this segment the first line of each stream starts: ``_LATER`` where that is in the next one."""
        self._within: dict[int, int] = {}
        """With an end: streams whose last line is not whole, and how many bytes more are looked through for its end."""

    def more(self) -> Iterator[Chunk]:
        if not self._placed:
            self._placed = True
            _Placing(self).place()
        while not self._done:
            later = [number for number in numbers(self.directory) if number > self._number]
            if self._segment:
                yield from self._rest(self._segment, bool(later))
            if not later or self._done:
                return
            if self._missed or 0 < self._number < later[0] - 1:
                yield Chunk(self._time, NOTE, _ROTATED)
            self.enter(later[0])

    def close(self) -> None:
        if self._segment:
            self._segment.close()
            self._segment = None
        self._done = True

    def enter(self, number: int, entry: int = 0, cut: int | None = None) -> None:
        """Go to an entry; one of a segment that has been removed meanwhile is passed over."""
        if self._segment:
            self._segment.close()
            self._segment = None
        self._number, self._entry, self._cut, self._missed = number, entry, cut, False
        self._starts = {stream: 0 for stream, start in self._starts.items() if start != _LATER}
        try:
            self._segment = Segment(self.directory, number)
        except FileNotFoundError:
            self._missed = True

    def _rest(self, segment: Segment, full: bool) -> Iterator[Chunk]:
        """What there is of the segment in which we are; a ``full`` one has a next."""
        while block := segment.entries(self._entry):
            for entry in block:
                self._entry += 1
                self._time = entry.time
                if entry.stream not in self._starts and entry.stream != NOTE:
                    self._starts[entry.stream] = _first_line(segment, entry, self._cut, full)
                yield from self._given(segment, entry)
                if self._done:
                    return

    def _given(self, segment: Segment, entry: Entry) -> Iterator[Chunk]:
        since, until = self.query.since, self.query.until
        self._cut = None
        if since is not None and entry.time < since:  # the clock was set back
            return
        if until is not None and entry.time > until:
            yield from self._line_end(segment, entry)
        elif entry.stream == NOTE:
            yield Chunk(entry.time, NOTE, b"%d bytes are missing here: they could not be written" % entry.offset)
        else:
            yield from self._pieces(segment, entry)

    def _pieces(self, segment: Segment, entry: Entry) -> Iterator[Chunk]:
        stream = entry.stream
        for data in segment.pieces(stream, max(entry.offset, self._starts[stream]), entry.end):
            if self.query.until is not None:
                self._within.pop(stream, None)
                if not data.endswith(b"\n"):
                    self._within[stream] = CHUNK
            yield Chunk(entry.time, stream, data)

    def _line_end(self, segment: Segment, entry: Entry) -> Iterator[Chunk]:
        """After the end of what is wanted: the rest of lines that began before it, and no more."""
        budget = self._within.get(entry.stream, 0)
        if budget:
            data = segment.read(entry.stream, entry.offset, min(budget, entry.length))
            end = data.find(b"\n") + 1
            self._within[entry.stream] = 0 if end else budget - len(data)
            yield Chunk(entry.time, entry.stream, data[: end or None])
        self._done = not any(self._within.values())


def _first_line(segment: Segment, entry: Entry, cut: int | None, full: bool) -> int:
    """Where the first line of an entry's stream starts. Output without any newline near is given as it is."""
    start = entry.offset if cut is None else cut
    found = segment.line_start(entry.stream, start)
    if found >= 0:
        return found
    return _LATER if full and segment.size(entry.stream) - start < CHUNK else start


class _Placing:
    """Finds where a reader begins: after ``since``, and at the start of the last so many lines."""

    def __init__(self, reader: FileReader) -> None:
        self.reader, self.directory, self.query = reader, reader.directory, reader.query

    def place(self) -> None:
        """Let the reader enter its first segment, if there is one."""
        existing = numbers(self.directory)
        if not existing:
            return
        number, entry = (existing[0], 0) if self.query.since is None else self._since(existing, self.query.since)
        cut: int | None = None
        if self.query.tail is not None:
            rest = [each for each in existing if each >= number]
            number, entry, cut = self._tail(rest, entry, self.query.tail)
        self.reader.enter(number, entry, cut)

    def _since(self, existing: list[int], since: int) -> tuple[int, int]:
        """The first entry that is not older: one look into each segment, then a bisection in one of them."""
        end = existing[0], 0
        for segment in _opened(self.directory, existing):
            length = len(segment)
            last = segment.entries(length - 1, 1) if length else []
            if last and last[0].time >= since:
                return segment.number, segment.place(since)
            end = segment.number, length
        return end

    def _tail(self, rest: list[int], first: int, wanted: int) -> tuple[int, int, int | None]:
        """Count lines backwards; where the wanted ones begin, as segment, entry, and place in its data.

        Both streams are counted together; a line's place is where it begins.
        """
        for segment in _opened(self.directory, reversed(rest)):
            lowest = first if segment.number == rest[0] else 0
            end = len(segment) if self.query.until is None else segment.place(self.query.until, after=True)
            if wanted == 0:
                return segment.number, end, None
            for position, entry in _backwards(segment, lowest, end):
                found, wanted = _count(segment, entry, wanted)
                if found is not None:
                    return segment.number, position, found
        return rest[0], first, None


def _count(segment: Segment, entry: Entry, wanted: int) -> tuple[int | None, int]:
    """The place at which the last wanted line of those in an entry begins; else None, and how many are wanted still."""
    if entry.stream == NOTE:
        return None, wanted
    for start, data in segment.pieces_backwards(entry.stream, max(0, entry.offset - 1), entry.end - 1):
        newlines = data.count(b"\n")
        if newlines >= wanted:
            end = len(data)
            for _ in range(wanted):
                end = data.rindex(b"\n", 0, end)
            return start + end + 1, 0
        wanted -= newlines
    if entry.offset == 0 and segment.begins_with_line(entry.stream):
        wanted -= 1
    return (None, wanted) if wanted else (0, 0)


def _backwards(segment: Segment, first: int, end: int) -> Iterator[tuple[int, Entry]]:
    """Entries with their numbers, newest first."""
    while end > first:
        start = max(first, end - 512)
        yield from reversed(list(enumerate(segment.entries(start, end - start), start)))
        end = start


def _opened(directory: Path, existing: Iterable[int]) -> Iterator[Segment]:
    """Segments, each open for as long as it is looked at; one that has been removed meanwhile is passed over."""
    for number in existing:
        try:
            segment = Segment(directory, number)
        except FileNotFoundError:
            continue
        try:
            yield segment
        finally:
            segment.close()
