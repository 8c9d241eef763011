"""Lines out of chunks: of one container with both its streams, and of several containers in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pycore.logs import NOTE, Chunk

MAX_LINE = 1 << 18
"""Bytes of a line that are kept together; a longer one comes in pieces, each as a line of its own."""


@dataclass(frozen=True)
class Line:
    """One line of a container's output."""

    time: int
    """When its first byte came, in nanoseconds since 1970."""
    stream: int
    data: bytes
    """With its newline, where it has one."""


Timed = TypeVar("Timed", Chunk, Line)


class LineMaker:
    """Makes lines of one container's chunks; a line that came in two reads is one."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[int, bytearray]] = {}
        """Stream to a line that has no end yet, and the time of its first byte."""

    def feed(self, chunk: Chunk) -> Iterator[Line]:
        """The lines that are whole now."""
        if chunk.stream == NOTE:
            yield Line(chunk.time, NOTE, chunk.data)
            return
        start = 0
        while start < len(chunk.data):
            end = chunk.data.find(b"\n", start) + 1
            piece = chunk.data[start : end or None]
            start += len(piece)
            time, line = self._begun.pop(chunk.stream, (chunk.time, bytearray()))
            line += piece
            if end or len(line) >= MAX_LINE:
                yield Line(time, chunk.stream, bytes(line))
            else:
                self._begun[chunk.stream] = time, line

    def rest(self) -> Iterator[Line]:
        """What has begun and not ended, now that nothing more comes."""
        for stream, (time, line) in sorted(self._begun.items(), key=lambda item: item[1][0]):
            yield Line(time, stream, bytes(line))
        self._begun.clear()


def merged(outputs: Mapping[str, Iterable[Timed]]) -> Iterator[tuple[str, Timed]]:
    """What came of several containers by time; what came of one stays in its order."""

    def named(name: str, output: Iterable[Timed]) -> Iterator[tuple[str, Timed]]:
        for each in output:
            yield name, each

    if len(outputs) == 1:
        return named(*next(iter(outputs.items())))
    return heapq.merge(*(named(name, output) for name, output in outputs.items()), key=lambda entry: entry[1].time)
