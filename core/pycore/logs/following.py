"""Reading logs of containers, also while they grow: as it came or line by line, several in the order of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pycore.errors import PycoreError
from pycore.logs import NOTE, Chunk, Log, LogReader, Query
from pycore.logs.lines import Line, LineMaker, Timed, merged
from pycore.logs.onlookers import Follower
from pycore.logs.pump import LogPump


@dataclass(frozen=True)
class Source:
    """A container whose log is read."""

    identity: str
    log: Log
    over: Callable[[], bool]
    """Whether nothing more comes: all that it ever wrote is in the log."""


PORTION = 1 << 16
"""Bytes that are given at once."""
_OVERHEAD = 32
"""Bytes that a line counts for beside its own."""

NOBODY: Mapping[int, Callable[[], bool]] = {}


class Asking:
    """Who asks, and until when: with a pump to follow, until the containers' end or ``query.until``."""

    def __init__(
        self,
        query: Query,
        pump: LogPump | None = None,
        hangups: Collection[int] = (),
        interrupts: Mapping[int, Callable[[], bool]] = NOBODY,
    ) -> None:
        """The descriptors tell when nobody cares any more, see :meth:`pycore.logs.onlookers.Follower.wait`.

        What is there to be read from an interrupt is read by what stands beside it, which says whether it meant that.
        """
        self.query, self.pump, self._hangups, self._interrupts = query, pump, hangups, interrupts

    def past(self) -> bool:
        """Whether nothing that comes now is wanted."""
        return self.query.until is not None and time.time_ns() > self.query.until

    def wait(self, follower: Follower) -> bool:
        """Until there is news, or may be; False when nobody cares any more."""
        until = self.query.until
        patience = None if until is None else (until - time.time_ns()) / 1e9 + 0.001
        up = follower.wait(patience, self._hangups, self._interrupts)
        return not any(fd not in self._interrupts or self._interrupts[fd]() for fd in up)


def chunks(sources: Mapping[str, Source], asking: Asking) -> Iterator[list[tuple[str, Chunk]]]:
    """What containers have written, as it came: by time, each piece with the name of its container; all that is there
    at once, in portions.
    """
    return _follow(sources, asking, lambda reader, over: reader.more())


def lines(sources: Mapping[str, Source], asking: Asking) -> Iterator[list[tuple[str, Line]]]:
    """The same in lines."""
    makers: dict[LogReader, LineMaker] = {}

    def made(reader: LogReader, over: bool) -> Iterator[Line]:
        maker = makers.setdefault(reader, LineMaker())
        for chunk in reader.more():
            yield from maker.feed(chunk)
        if over:
            yield from maker.rest()

    return _follow(sources, asking, made)


def _follow(
    sources: Mapping[str, Source], asking: Asking, read: Callable[[LogReader, bool], Iterator[Timed]]
) -> Iterator[list[tuple[str, Timed]]]:
    follower = asking.pump.follow([source.identity for source in sources.values()]) if asking.pump else None
    readers: dict[str, LogReader] = {}
    try:
        for name, source in sources.items():
            readers[name] = _open(source, asking.query, alone=len(sources) == 1)
        news = set(sources)
        while True:
            past = follower is None or asking.past()
            over = {name for name, source in sources.items() if past or source.over()}
            fresh = {name: read(readers[name], name in over) for name in sources if name in news | over}
            yield from _portions(merged(fresh))
            if len(over) == len(sources) or follower is None or not asking.wait(follower):
                return
            told = follower.take()
            news = {name for name, source in sources.items() if source.identity in told}
    finally:
        for reader in readers.values():
            reader.close()
        if follower:
            follower.close()


def _portions(output: Iterable[tuple[str, Timed]]) -> Iterator[list[tuple[str, Timed]]]:
    """Lists that are worth a system call each, and no larger than that."""
    portion: list[tuple[str, Timed]] = []
    size = 0
    for name, each in output:
        portion.append((name, each))
        size += _OVERHEAD + len(each.data)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _open(source: Source, query: Query, *, alone: bool) -> LogReader:
    """Begin to read; of several logs, one that cannot be read is a remark among the others."""
    try:
        return source.log.read(query)
    except PycoreError as error:
        if alone:
            raise
        return _Unreadable(error)


class _Unreadable:
    """Instead of a log that cannot be read: the reason, once."""

    def __init__(self, error: PycoreError) -> None:
        self._error: PycoreError | None = error

    def more(self) -> Iterator[Chunk]:
        error, self._error = self._error, None
        if error:
            yield Chunk(time.time_ns(), NOTE, error.message.encode())

    def close(self) -> None:
        pass
