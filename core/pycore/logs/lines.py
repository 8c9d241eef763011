"""Lines out of chunks: of one container with both its streams, and of several containers in the order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from pycore.logs import NOTE, Chunk

MAX_LINE = 1 << 18
"""Bytes of a line that are kept together; a longer one comes in pieces, each as a line of its own."""


class Line(NamedTuple):
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

    def feed(self, chunk: Chunk) -> list[Line]:
        """The lines that are whole now."""
        time, stream = chunk.time, chunk.stream
        if stream == NOTE:
            return [Line(time, NOTE, chunk.data)]
        first, *others = chunk.data.split(b"\n")
        began, line = self._begun.pop(stream, (time, bytearray()))
        line += first
        made: list[Line] = []
        if others:
            made.append(Line(began, stream, bytes(line) + b"\n"))
            began, line = time, bytearray(others.pop())
            made += [Line(time, stream, other + b"\n") for other in others]
        if len(line) >= MAX_LINE:
            made.append(Line(began, stream, bytes(line)))
        elif line:
            self._begun[stream] = began, line
        return made

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
