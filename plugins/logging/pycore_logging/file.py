"""The driver ``file``: output in the data dir, bounded by size and number of files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import pydantic
from pycore.hookspecs import Driver, Host, hookimpl
from pycore.logs import Log, LogReader, LogSink, Query
from pycore.spec import Change, Container, Section, Size, parse_size, setting

from pycore_logging.reading import FileReader
from pycore_logging.writing import FileSink

SMALLEST = 4096


def _large_enough(value: str) -> str:
    if parse_size(value) < SMALLEST:
        raise ValueError('must be at least "4K"')
    return value


class Files(Section):
    """How much of a container's output is kept."""

    table: ClassVar[str] = "container.*.logging"

    max_size: Annotated[Size, pydantic.AfterValidator(_large_enough)] = setting(
        "16M",
        doc="How large a file of the log gets before the next is begun; what is noted beside the output counts too.",
        change=Change.LIVE,
        example="64M",
        flags=("--log-max-size",),
    )
    max_files: Annotated[int, pydantic.Field(ge=1, le=10_000)] = setting(
        4,
        doc="How many of them are kept; the oldest goes. So a log is never larger than the two multiplied.",
        change=Change.LIVE,
        flags=("--log-max-files",),
    )


class FileLog:
    """A container's log in a directory of its own."""

    def __init__(self, directory: Path, max_size: int, max_files: int) -> None:
        self.directory, self.max_size, self.max_files = directory, max_size, max_files

    def open(self) -> LogSink:
        """Its end; what a killed supervisor left unfinished there is finished."""
        return FileSink(self.directory, self.max_size, self.max_files)

    def read(self, query: Query) -> LogReader:
        """What is kept of it; nothing where the container has not said a word."""
        return FileReader(self.directory, query)

    def remove(self) -> None:
        """Remove its files."""
        shutil.rmtree(self.directory, ignore_errors=True)


@hookimpl
def pycore_driver() -> Driver:
    """The default."""
    return Driver("logging", "file", "Output is kept in files, bounded by size and number.", default=True)


@hookimpl
def pycore_sections() -> Sequence[type[Section]]:
    """``max_size`` and ``max_files``."""
    return [Files]


@hookimpl
def pycore_log(container: Container, host: Host) -> Log:
    """A log beside the container's layer."""
    wanted = container[Files]
    return FileLog(host.container_dir(container) / "log", parse_size(wanted.max_size), wanted.max_files)
