"""Reading logs of containers, also while they grow: as it came or line by line, several in the order of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from pycore.lines import Line, LineMaker, Timed, merged
from pycore.logs import Chunk, Follower, Log, LogPump, LogReader, Query


@dataclass(frozen=True)
class Source:
    """A container whose log is read."""

    identity: str
    log: Log
    over: Callable[[], bool]
    """Whether nothing more comes: all that it ever wrote is in the log."""


class Asking:
    """Who asks, and until when: with a pump to follow, until the containers' end or ``query.until``."""

    def __init__(
        self,
        query: Query,
        pump: LogPump | None = None,
        hangups: Collection[int] = (),
        interrupts: Collection[int] = (),
    ) -> None:
        """The descriptors tell when nobody cares any more, see :meth:`pycore.logs.Follower.wait`."""
        self.query, self.pump, self._hangups, self._interrupts = query, pump, hangups, interrupts

    def past(self) -> bool:
        """Whether nothing that comes now is wanted."""
        return self.query.until is not None and time.time_ns() > self.query.until

    def wait(self, follower: Follower) -> bool:
        """Until there is news, or may be; False when nobody cares any more."""
        until = self.query.until
        patience = None if until is None else (until - time.time_ns()) / 1e9 + 0.001
        return follower.wait(patience, self._hangups, self._interrupts)


def chunks(sources: Mapping[str, Source], asking: Asking) -> Iterator[tuple[str, Chunk]]:
    """What containers have written, as it came: by time, each with the name of its container."""
    return _follow(sources, asking, lambda reader, over: reader.more())


def lines(sources: Mapping[str, Source], asking: Asking) -> Iterator[tuple[str, Line]]:
    """What containers have written, line by line: by time, each with the name of its container."""
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
) -> Iterator[tuple[str, Timed]]:
    follower = asking.pump.follow([source.identity for source in sources.values()]) if asking.pump else None
    readers: dict[str, LogReader] = {}
    try:
        for name, source in sources.items():
            readers[name] = source.log.read(asking.query)
        news = set(sources)
        while True:
            past = follower is None or asking.past()
            over = {name for name, source in sources.items() if past or source.over()}
            yield from merged({name: read(readers[name], name in over) for name in sources if name in news | over})
            if len(over) == len(sources) or follower is None or not asking.wait(follower):
                return
            told = follower.take()
            news = {name for name, source in sources.items() if source.identity in told}
    finally:
        for reader in readers.values():
            reader.close()
        if follower:
            follower.close()
