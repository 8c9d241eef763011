"""What a log is: the words between whoever keeps output, whoever writes it down, and whoever reads it.

A driver (``pycore_log``) says what becomes of a container's output: it gives a :class:`Log`, which opens a
:class:`LogSink` while the container runs and a :class:`LogReader` for whoever wants to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pycore.errors import PycoreError

STDOUT, STDERR = 1, 2
NOTE = 0
"""The stream of a chunk that is not the container's: a remark of the driver on what is missing here, for people."""

CHUNK = 1 << 16
"""Bytes that are read at once."""


@dataclass(frozen=True)
class Chunk:
    """What one read brought."""

    time: int
    """When, in nanoseconds since 1970."""
    stream: int
    """``STDOUT``, ``STDERR`` or ``NOTE``."""
    data: bytes


@dataclass(frozen=True)
class Query:
    """Which part of a log is wanted; times in nanoseconds since 1970. A line's time is that of its first byte."""

    since: int | None = None
    until: int | None = None
    tail: int | None = None
    """The last so many lines of what the other two leave."""


EVERYTHING = Query()


class LogSink(Protocol):
    """Where a running container's output goes. Used by the pump's thread alone, which must not wait for long."""

    def write(self, stream: int, data: bytes) -> int:
        """Keep what one read brought; how many of the bytes are kept. The rest is lost, all of it on an OSError."""
        ...

    def close(self) -> None:
        """The output has come to its end, or somebody else takes over."""
        ...


@runtime_checkable
class PipeSink(LogSink, Protocol):
    """A sink that takes what is in a pipe without its passing through Python."""

    def splice(self, stream: int, pipe: int, limit: int) -> int:
        """Move at most ``limit`` bytes; how many, 0 at the pipe's end.

        Raises BlockingIOError where the pipe is empty, another OSError where nothing can be kept or moved so: the
        bytes are in the pipe still.
        """
        ...

    def recent(self, stream: int, length: int) -> bytes:
        """The last so many bytes of what the last :meth:`splice` has moved."""
        ...


@runtime_checkable
class WaitingSink(LogSink, Protocol):
    """A sink that may have to wait for somebody: meanwhile its container waits too, and nobody else."""

    def blocked(self) -> int | None:
        """A descriptor that can be written to once the sink can go on; None where it takes more right now."""
        ...

    def resume(self) -> None:
        """Go on with what has been taken and not passed on. Raises OSError where that is lost."""
        ...


class LogReader(Protocol):
    """One look at a log, which remembers how far it has got. For one thread."""

    def more(self) -> Iterator[Chunk]:
        """What is there and was not given yet, oldest first. Asked again, it goes on with what has come since."""
        ...

    def close(self) -> None:
        """Nobody asks again."""
        ...


class Log(Protocol):
    """What becomes of a container's output: the answer of its logging driver."""

    def open(self) -> LogSink | None:
        """Where the output goes while the container runs; None where it is thrown away.

        Called at each start, and by a supervisor that takes over, perhaps from one that was killed while it wrote.
        """
        ...

    def read(self, query: Query) -> LogReader:
        """What is kept of it. Raises PycoreError where nothing is, saying why."""
        ...

    def remove(self) -> None:
        """Forget it; the container is removed. Called again after a crash; a log that is gone is fine."""
        ...


class NoLog:
    """Nothing is kept; ``why`` is said to who asks for it."""

    def __init__(self, why: str = "no logging driver is installed", hint: str | None = None) -> None:
        self._why, self._hint = why, hint

    def open(self) -> LogSink | None:
        """Nowhere."""
        return None

    def read(self, query: Query) -> LogReader:
        """Raises PycoreError, always."""
        raise PycoreError(f"no output is kept: {self._why}", hint=self._hint)

    def remove(self) -> None:
        """There is nothing to remove."""
