"""Whatever came in whatever pieces, a log gives the lines that a query asks for, as a list in memory would."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from pycore.logs import STDERR, STDOUT, Chunk, PipeSink, Query
from pycore.logs.lines import Line, LineMaker
from pycore_logging.file import FileLog

PIECES = st.lists(
    st.tuples(st.sampled_from((STDOUT, STDERR)), st.text("ab\n", min_size=1, max_size=9).map(str.encode)), max_size=40
)
"""What came, in order; the n-th at the time n."""


@contextmanager
def written(pieces: list[tuple[int, bytes]], max_size: int, spliced: bool, reopened: int) -> Iterator[FileLog]:
    with tempfile.TemporaryDirectory() as directory:
        log = FileLog(Path(directory, "log"), max_size, 1000)
        sink = log.open()
        for number, (stream, data) in enumerate(pieces, 1):
            if number == reopened:
                sink.close()
                sink = log.open()
            with mock.patch.object(time, "time_ns", return_value=number):
                if spliced:
                    _splice(sink, stream, data)
                else:
                    assert sink.write(stream, data) == len(data)
        sink.close()
        yield log


def _splice(sink: object, stream: int, data: bytes) -> None:
    assert isinstance(sink, PipeSink)
    end, start = os.pipe()
    os.write(start, data)
    os.close(start)
    while sink.splice(stream, end, 1 << 20):
        pass
    os.close(end)


def of_log(log: FileLog, query: Query) -> list[Line]:
    maker = LineMaker()
    with closing(log.read(query)) as reader:
        found = [line for chunk in reader.more() for line in maker.feed(chunk)]
    return [*found, *maker.rest()]


def in_memory(pieces: list[tuple[int, bytes]], query: Query) -> list[Line]:
    """The lines that a query asks for, each at the time of its first byte; of one stream in their order."""
    maker = LineMaker()
    lines = [
        line
        for number, (stream, data) in enumerate(pieces, 1)
        for line in maker.feed(Chunk(number, stream, data))
    ]  # fmt: skip
    lines += maker.rest()
    since, until = query.since or 0, 1 << 60 if query.until is None else query.until
    wanted = [line for line in lines if since <= line.time <= until]
    if query.tail is None:
        return wanted
    begun = sorted(range(len(wanted)), key=lambda index: (wanted[index].time, _in_its_piece(wanted, index)))
    kept = set(begun[max(0, len(begun) - query.tail) :])
    return [line for index, line in enumerate(wanted) if index in kept]


def _in_its_piece(lines: list[Line], index: int) -> int:
    """How many lines of the same stream and time come before: their order within one read."""
    return sum(line.time == lines[index].time for line in lines[:index])


NUMBER = st.none() | st.integers(0, 45)


@given(PIECES, NUMBER, NUMBER, NUMBER, st.sampled_from((4096, 170)), st.booleans(), st.integers(0, 40))
def test_queries_give_what_a_list_would(
    pieces: list[tuple[int, bytes]],
    since: int | None,
    until: int | None,
    tail: int | None,
    max_size: int,
    spliced: bool,
    reopened: int,
) -> None:
    query = Query(since, until, tail)
    pieces = [
        *pieces,
        (STDOUT, b"\n"),
        (STDERR, b"\n"),
    ]  # a line that is cut and never ends is shown, as far as it goes
    with written(pieces, max_size, spliced, reopened) as log:
        found, expected = of_log(log, query), in_memory(pieces, query)
        for stream in (STDOUT, STDERR):
            assert [line for line in found if line.stream == stream] == [
                line for line in expected if line.stream == stream
            ]
