"""A container's output on disk: the bytes as they came, and beside them an index that says when and from where.

One index entry per read, not per line: a container that writes as fast as it can costs Python one step
per 64 KiB. The index is an array of fixed-size entries, so a point in time is found by bisection.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

STDOUT, STDERR = 1, 2
CHUNK = 1 << 16
_ENTRY = struct.Struct("<QQII")  # time in ns since 1970, offset in the data, length, stream


@dataclass(frozen=True)
class Chunk:
    """What one read brought."""

    time: float
    stream: int
    data: bytes


@dataclass(frozen=True)
class Query:
    """Which part of a log is wanted; times in seconds since 1970."""

    since: float | None = None
    until: float | None = None
    tail: int | None = None
    """The last so many lines of what the other two leave."""


class LogSink(Protocol):
    """Where a running container's output goes. Used by the pump's thread alone."""

    def write(self, stream: int, data: bytes) -> None:
        """Keep what one read brought. Raises OSError where it cannot be kept (a full disk): it is lost."""
        ...

    def close(self) -> None:
        """The output has come to its end."""
        ...


class Log(Protocol):
    """What becomes of a container's output: the answer of its logging driver."""

    def open(self) -> LogSink | None:
        """Where the output goes while the container runs; None where it is thrown away."""
        ...

    def read(self, query: Query) -> Iterator[Chunk]:
        """What is kept of it, oldest first. Raises PycoreError where nothing is kept, saying why."""
        ...

    def remove(self) -> None:
        """Forget it; the container is removed."""
        ...


class NoLog:
    """Nothing is kept."""

    def open(self) -> LogSink | None:
        return None

    def read(self, query: Query) -> Iterator[Chunk]:
        return iter(())

    def remove(self) -> None:
        pass


class LogWriter:
    """Appends to a container's log, which is made with the first output: many containers never say a word."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = self._index = -1
        self._offset = 0

    def _open(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if self._index < 0:  # else the disk was full between the two
            self._index = os.open(self._directory / "index", flags, 0o600)
        self._data = os.open(self._directory / "data", flags, 0o600)
        self._offset = os.fstat(self._data).st_size

    def write(self, stream: int, data: bytes) -> None:
        """Append. Data first: an index entry never points at what is not there. Raises OSError on a full disk."""
        if self._data < 0:
            self._open()
        written = os.write(self._data, data)
        os.write(self._index, _ENTRY.pack(time.time_ns(), self._offset, written, stream))
        self._offset += written

    def close(self) -> None:
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)


def log_dir(data_dir: Path, identity: str) -> Path:
    """Where a container's log is."""
    return data_dir / "containers" / identity / "log"


def read_log(directory: Path, first: int = 0) -> Iterator[Chunk]:
    """The chunks of a log from entry number ``first`` on; nothing where there is no log."""
    with contextlib.suppress(FileNotFoundError), open(directory / "index", "rb") as index:
        index.seek(first * _ENTRY.size)
        with open(directory / "data", "rb") as data:
            while len(entry := index.read(_ENTRY.size)) == _ENTRY.size:
                nanoseconds, offset, length, stream = _ENTRY.unpack(entry)
                data.seek(offset)
                yield Chunk(nanoseconds / 1e9, stream, data.read(length))


class LogPump(threading.Thread):
    """Moves the output of all containers of an engine from their pipes to their logs, in one thread."""

    def __init__(self) -> None:
        super().__init__(name="pycore-logs", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._news: list[Callable[[], None]] = []
        self._written = threading.Condition()
        self._stopping = False
        self.start()

    def add(self, directory: Path, outputs: tuple[int, int]) -> threading.Event:
        """Take over a container's pipes (stdout, stderr); the event is set when both have ended."""
        writer, done, open_pipes = LogWriter(directory), threading.Event(), set(outputs)

        def finish(fd: int) -> None:
            self._selector.unregister(fd)
            os.close(fd)
            open_pipes.discard(fd)
            if not open_pipes:
                writer.close()
                done.set()

        def move(fd: int, stream: int) -> None:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                return
            if not data:
                finish(fd)
                return
            with contextlib.suppress(OSError):  # a full disk loses output, it must not stop the container
                writer.write(stream, data)
            with self._written:
                self._written.notify_all()

        def register() -> None:
            for stream, fd in zip((STDOUT, STDERR), outputs, strict=True):
                os.set_blocking(fd, False)
                self._selector.register(fd, selectors.EVENT_READ, lambda fd=fd, stream=stream: move(fd, stream))

        self._news.append(register)
        os.write(self._woken, b"x")
        return done

    def wait_for_more(self, seconds: float) -> None:
        """Until any log has grown, or the time is over."""
        with self._written:
            self._written.wait(seconds)

    def run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if key.fd == self._wake:
                    self._take_news()
                else:
                    key.data()

    def _take_news(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while self._news:
            self._news.pop(0)()

    def stop(self) -> None:
        """End the thread; what is in the pipes stays there."""
        self._stopping = True
        os.write(self._woken, b"x")
        self.join(5)
        for fd in (self._wake, self._woken):
            os.close(fd)
        self._selector.close()
