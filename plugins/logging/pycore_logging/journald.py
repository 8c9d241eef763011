"""The driver ``journald``: each line of output is an entry of the host's journal, which keeps and bounds it."""

from __future__ import annotations

import contextlib
import select
import shutil
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO

from pycore.errors import Problem, PycoreError
from pycore.hookspecs import Driver, Host, hookimpl
from pycore.logs import STDERR, STDOUT, Chunk, Log, LogReader, LogSink, Query
from pycore.logs.lines import LineMaker
from pycore.ops import Operation
from pycore.spec import Container

from pycore_logging import journal
from pycore_logging.journal import Journal, entry, exported

_PRIORITY = {STDOUT: b"6", STDERR: b"3"}
"""syslog's words for streams: information, error."""
_LAST = 1.0
"""Seconds that the last words of a container may wait for a busy journal."""


class JournalSink:
    """A container's end of the journal: a :class:`pycore.logs.WaitingSink`."""

    def __init__(self, identity: str, name: str) -> None:
        self._fields = {
            "SYSLOG_IDENTIFIER": name.encode(),
            "CONTAINER_NAME": name.encode(),
            "CONTAINER_ID": identity.encode(),
        }
        self._lines = LineMaker()
        self._journal = Journal()
        self._waiting: deque[bytes] = deque()
        """Entries that the journal had no room for: at most those of one read."""

    def write(self, stream: int, data: bytes) -> int:
        lines = self._lines.feed(Chunk(0, stream, data))
        self._waiting += [self._entry(line.stream, line.data) for line in lines]
        try:
            self.resume()
        except OSError:
            self._waiting.clear()
            raise
        return len(data)

    def _entry(self, stream: int, line: bytes) -> bytes:
        return entry({"MESSAGE": line.rstrip(b"\n"), "PRIORITY": _PRIORITY[stream], **self._fields})

    def blocked(self) -> int | None:
        return self._journal.fileno() if self._waiting else None

    def resume(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._waiting:
                self._journal.send(self._waiting[0])
                self._waiting.popleft()

    def close(self) -> None:
        self._waiting += [self._entry(line.stream, line.data) for line in self._lines.rest()]
        with contextlib.suppress(OSError):
            self.resume()
            if self._waiting:
                room = select.poll()  # not select(2), which knows no descriptor above 1023
                room.register(self._journal, select.POLLOUT)
                room.poll(_LAST * 1000)
                self.resume()
        self._journal.close()


class JournalReader:
    """Entries of one container, as ``journalctl`` gives them."""

    def __init__(self, program: str, identity: str, query: Query) -> None:
        self._command = [program, "--output=export", "--no-pager", "--quiet", "--all", f"CONTAINER_ID={identity}"]
        self._program, self._query, self._tail, self._cursor = program, query, query.tail, ""

    def more(self) -> Iterator[Chunk]:
        # What was written a moment ago may be on its way still.
        subprocess.run([self._program, "--sync"], capture_output=True, check=False)
        silent = self._tail == 0  # the last entry is asked for to know the place after it
        where = [*_conditions(self._query), *_place(self._cursor, self._tail)]
        self._tail = None
        with subprocess.Popen([*self._command, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            for chunk in self._chunks(process.stdout):
                if not silent:
                    yield chunk
            process.stdout.close()
            said = process.stderr.read().decode("utf-8", "replace").strip()
        if process.returncode > 0:
            raise PycoreError(f"journalctl cannot be asked: {said or process.returncode}")

    def _chunks(self, output: IO[bytes]) -> Iterator[Chunk]:
        for fields in exported(output):
            self._cursor = fields.get("__CURSOR", b"").decode("ascii", "replace") or self._cursor
            time = int(fields.get("__REALTIME_TIMESTAMP", b"0")) * 1000
            if self._query.until is not None and time > self._query.until:
                return
            stream = STDERR if fields.get("PRIORITY") == _PRIORITY[STDERR] else STDOUT
            yield Chunk(time, stream, fields.get("MESSAGE", b"") + b"\n")

    def close(self) -> None:
        pass


def _conditions(query: Query) -> Iterator[str]:
    if query.since is not None:
        yield f"--since=@{query.since // 10**9}.{query.since % 10**9 // 1000:06}"
    if query.until is not None:
        yield f"--until=@{query.until // 10**9}.{query.until % 10**9 // 1000:06}"


def _place(cursor: str, tail: int | None) -> Iterator[str]:
    if cursor:
        yield f"--after-cursor={cursor}"
    elif tail is not None:
        yield f"--lines={max(1, tail)}"


class JournalLog:
    """A container's entries in the host's journal."""

    def __init__(self, identity: str, name: str) -> None:
        self._identity, self._name = identity, name

    def open(self) -> LogSink:
        """A connection to the journal, made with the first line."""
        return JournalSink(self._identity, self._name)

    def read(self, query: Query) -> LogReader:
        """What the journal has kept. Raises PycoreError where it cannot be asked."""
        program = shutil.which("journalctl")
        if program is None:
            raise PycoreError(
                f"the output of {self._name} is in the journal, and there is no journalctl to ask for it",
                hint="apt-get install systemd",
            )
        return JournalReader(program, self._identity, query)

    def remove(self) -> None:
        """The journal keeps what it was told, and forgets in its own time."""


@hookimpl
def pycore_driver() -> Driver:
    """Chosen with ``driver = "journald"``."""
    return Driver("logging", "journald", "Each line of output is an entry of the host's journal.")


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    """Nothing to do, but a journal has to be there."""
    if not host.look.exists(journal.SOCKET):
        host.problems.append(
            Problem(
                ("logging", "driver"),
                f"there is no journal on this host: {journal.SOCKET} is missing",
                hint='use driver = "file", or start systemd-journald',
            )
        )
    return []


@hookimpl
def pycore_log(container: Container, host: Host) -> Log:
    """The host's journal."""
    return JournalLog(container.id, container.full_name)
