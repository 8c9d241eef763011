"""Logs in a directory of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pycore.logs import Chunk, Query
from pycore.logs.lines import Line, LineMaker
from pycore_logging.file import FileLog
from pycore_logging.segments import SUFFIXES, numbers, path

MakeLog = Callable[..., FileLog]


@pytest.fixture
def make_log(tmp_path: Path) -> MakeLog:
    def make(max_size: int = 1 << 20, max_files: int = 4) -> FileLog:
        return FileLog(tmp_path / "log", max_size, max_files)

    return make


def read(log: FileLog, **query: int | None) -> list[Chunk]:
    """All chunks of a log that a query asks for."""
    with closing(log.read(Query(**query))) as reader:
        return list(reader.more())


def lines(log: FileLog, **query: int | None) -> list[bytes]:
    """The same as lines, without remarks."""
    return [line.data for line in whole_lines(iter(read(log, **query))) if line.stream]


def whole_lines(chunks: Iterator[Chunk]) -> list[Line]:
    maker = LineMaker()
    made = [line for chunk in chunks for line in maker.feed(chunk)]
    return [*made, *maker.rest()]


def on_disk(log: FileLog) -> int:
    """Bytes that a log takes."""
    return sum(file.stat().st_size for file in log.directory.iterdir())


def index_of(log: FileLog) -> Path:
    """The index of the newest segment."""
    return Path(path(log.directory, numbers(log.directory)[-1], "index"))


def data_of(log: FileLog, stream: int) -> Path:
    return Path(path(log.directory, numbers(log.directory)[-1], SUFFIXES[stream]))


def pipe_with(data: bytes) -> int:
    """The read end of a pipe that holds this and has ended."""
    end, start = os.pipe2(os.O_CLOEXEC)
    os.write(start, data)
    os.close(start)
    return end
