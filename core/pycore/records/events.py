"""What happened to containers, one JSON line each, for ``pycore events``: appended, read and followed.

    RUN_DIR/events.jsonl      the events of late
    RUN_DIR/events.1.jsonl    those before; older ones are gone

What is kept is bounded, and telling never fails: where the disk is full an event is lost, which the next one
that is kept says. Only the process that holds the run dir tells and follows.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

What = Literal[
    "create", "start", "exec", "exec-die", "update", "pause", "unpause", "rename", "health", "oom", "kill", "stop",
    "die", "restart", "destroy",
    "apply", "down", "take-over", "repair", "log-lost", "gap",
]  # fmt: skip
"""``stop`` is a person's wish, ``die`` the end itself; ``gap`` says that events are missing here."""

Event = dict[str, Any]
"""``time`` (seconds since the epoch) and ``what``; ``app``, ``container`` and ``id`` where it is about one; details."""

Mark = tuple[int, int]
"""A place between two events: a file's number, and bytes in it."""

FILE, OLD = "events.jsonl", "events.1.jsonl"
MOST = 4 << 20
"""Bytes of each of the two files."""

_LONGEST = 64 << 10
_LOOK_UP = 1.0
"""Seconds after which a follower asks anew whether it is to go on; :meth:`Events.wake` makes it ask at once."""


class Named(Protocol):
    """What an event can be about: a container's record."""

    @property
    def app(self) -> str:
        """The app's name."""
        ...

    @property
    def name(self) -> str:
        """The container's name in it."""
        ...

    @property
    def id(self) -> str:
        """The container's id."""
        ...


@dataclass(frozen=True)
class EventQuery:
    """Which events are wanted."""

    since: float | None = None
    """Seconds since the epoch. None: from the beginning for :meth:`Events.read`, from now for a follower."""
    until: float | None = None
    """Seconds since the epoch; a follower ends then."""
    filters: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])
    """By field, any of these values: ``{"what": ["die", "oom"], "container": ["shop/web"]}``."""

    def wants(self, event: Event) -> bool:
        """Whether an event is asked for."""
        moment = event["time"]
        if (self.since is not None and moment < self.since) or (self.until is not None and moment > self.until):
            return False
        return event["what"] == "gap" or all(_has(event, key, values) for key, values in self.filters.items())


def _has(event: Event, key: str, values: Collection[str]) -> bool:
    if key == "container":
        return not {*values}.isdisjoint(_names(event))
    value = event.get(key)
    return value is not None and (value if isinstance(value, str) else json.dumps(value)) in values


def _names(event: Event) -> set[str]:
    """All that the event's container is called."""
    name, app = event.get("container", ""), event.get("app", "")
    return {name, f"{app}/{name}", event.get("id", "")} - {"", "/"}


class Events:
    """The events of one run dir. All methods may be called from any thread."""

    def __init__(self, run_dir: Path, *, most: int = MOST, clock: Callable[[], float] = time.time) -> None:
        self._path, self._old = run_dir / FILE, run_dir / OLD
        self._most, self._clock = most, clock
        self._changed = threading.Condition(threading.Lock())
        self._fd = -1
        self._size = 0
        self._generation = 0
        """How many files have been begun: what tells a follower that there is another."""
        self._told = 0
        self._lost = 0
        self._closed = False

    # -- telling -----------------------------------------------------------------------------------------

    def emit(self, what: What, about: Named | None = None, /, **details: Any) -> None:
        """Tell that something happened. Details are plain values; those that are None are left out. Never fails."""
        event: Event = {"time": round(self._clock(), 6), "what": what}
        if about is not None:
            event |= {"app": about.app, "container": about.name, "id": about.id}
        event |= {key: value for key, value in details.items() if value is not None}
        with self._changed:
            if self._closed:
                return
            try:
                if self._lost:
                    self._append({"time": event["time"], "what": "gap", "lost": self._lost})
                    self._lost = 0
                self._append(event)
            except OSError:
                self._lost += 1
            self._told += 1
            self._changed.notify_all()

    def _append(self, event: Event) -> None:
        data = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        if len(data) > _LONGEST:
            keys = ("time", "what", "app", "container", "id")
            data = json.dumps({key: event[key] for key in keys if key in event}).encode() + b"\n"
        if self._fd >= 0 and self._size + len(data) > self._most:
            self._change_over()
        if self._fd < 0:
            self._open()
        try:
            written = os.write(self._fd, data)
        except OSError:
            written = 0
        if written < len(data):
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._generation += 1
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            os.write(self._fd, b"\n")  # whoever wrote the last line was killed in the middle of it
            self._size += 1

    def _change_over(self) -> None:
        os.rename(self._path, self._old)
        os.close(self._fd)
        self._fd = -1

    # -- listening ---------------------------------------------------------------------------------------

    def read(self, query: EventQuery | None = None) -> Iterator[Event]:
        """What has happened so far and is asked for, the oldest first."""
        query = query or EventQuery()
        with self._changed:
            readers = [_Reader(self._old), _Reader(self._path)]
        with contextlib.ExitStack() as stack:
            for reader in readers:
                stack.callback(reader.close)
            for reader in readers:
                yield from filter(query.wants, reader.more())

    def follow(self, ended: Callable[[], bool], query: EventQuery | None = None) -> Iterator[Event]:
        """Events as they come, until ``ended`` says so, the query's time is over, or the events are closed.

        From the moment of this call; with ``query.since`` those that were kept come first. ``ended`` is asked
        whenever there is something new, every second, and after :meth:`wake`.
        """
        query = query or EventQuery()
        return self._follow(ended, query, self._mark() if query.since is None else None)

    def _follow(self, ended: Callable[[], bool], query: EventQuery, mark: Mark | None) -> Iterator[Event]:
        follower = _Follower(self, query, mark)
        try:
            while not ended():
                yield from follower.more()
                if not follower.wait():
                    yield from follower.more()
                    return
        finally:
            follower.close()

    def _mark(self) -> Mark:
        """Where the next event will be."""
        with self._changed:
            self._begun()
            return self._generation, self._size

    def _begun(self) -> None:
        """The last file is open, so that its number is what it will be when something is told; the lock is held."""
        if self._fd < 0 and not self._closed:
            with contextlib.suppress(OSError):
                self._open()

    def wake(self) -> None:
        """Let every follower ask whether it is to go on."""
        with self._changed:
            self._told += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Tell nothing more; followers end."""
        with self._changed:
            self._closed = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            self._changed.notify_all()

    # -- for the follower, in this file ------------------------------------------------------------------

    def begin(self, mark: Mark | None) -> tuple[list[_Reader], int]:
        """The files that have anything after a mark (None: all there are), and the number of the last one."""
        with self._changed:
            self._begun()
            newer = 1 if mark is None else self._generation - mark[0]
            readers = [_Reader(path) for path in (self._old, self._path)[-(newer + 1) :]]
            if mark and newer < len(readers):
                readers[0].skip(mark[1])
            return readers, self._generation

    def next_files(self, generation: int) -> tuple[list[_Reader], int]:
        """The files that came after that number, if any; with a gap in between where one of them is gone."""
        with self._changed:
            newer = self._generation - generation
            paths = (self._old, self._path)[-newer:] if newer else ()
            return [_Reader(path) for path in paths], self._generation

    def wait(self, told: int, seconds: float) -> tuple[int, bool]:
        """Wait until more has been told than ``told``. Returns how much has, and whether there can be more."""
        with self._changed:
            if self._told == told and not self._closed:
                self._changed.wait(seconds)
            return self._told, not self._closed


class _Follower:
    """Reads on from where it was, over changes of the files."""

    def __init__(self, events: Events, query: EventQuery, mark: Mark | None) -> None:
        self._events, self._query = events, query
        self._told = -1
        self._readers, self._generation = events.begin(mark)
        self._gap = mark is not None and self._generation - mark[0] >= len(self._readers)

    def more(self) -> Iterator[Event]:
        """All that has come since."""
        while True:
            if self._gap:
                self._gap = False
                yield {"time": time.time(), "what": "gap"}
            before = self._generation
            came, self._generation = self._events.next_files(before)
            for reader in self._readers:  # nothing is added any more to files that others came after
                yield from filter(self._query.wants, reader.more())
            if not came:
                return
            self._gap = self._generation - before > len(came)
            self.close()
            self._readers = came

    def wait(self) -> bool:
        """Wait for more; False where none can come."""
        seconds = _LOOK_UP
        if self._query.until is not None:
            seconds = min(seconds, self._query.until - time.time())
            if seconds <= 0:
                return False
        self._told, open_still = self._events.wait(self._told, seconds)
        return open_still

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers = []


class _Reader:
    """One file of events, read line by line as far as it is written."""

    def __init__(self, path: Path) -> None:
        self._rest = b""
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def skip(self, size: int) -> None:
        """Leave out so much of the beginning."""
        if self._fd >= 0:
            os.lseek(self._fd, size, os.SEEK_SET)

    def more(self) -> Iterator[Event]:
        """The events that are whole and were not read yet."""
        while self._fd >= 0 and (data := os.read(self._fd, 1 << 16)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                event = _parse(line)
                if event is not None:
                    yield event

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse(line: bytes) -> Event | None:
    """An event; None for what is none, such as half a line of before a crash."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    event = cast(Event, found)
    return event if isinstance(event.get("time"), (int, float)) and isinstance(event.get("what"), str) else None
