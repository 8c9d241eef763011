"""What a log is, and the pump that fills all of them: one thread, and no byte passes through Python where it need not.

A driver (``pycore_log``) says what becomes of a container's output: it gives a :class:`Log`, which opens a
:class:`LogSink` while the container runs and a :class:`LogReader` for whoever wants to see. The pump waits for all
pipes at once and moves what is there. A sink that can take a pipe's content as it is (:class:`PipeSink`) lets the
kernel do it; whoever is killed in the middle has then neither lost nor doubled a byte.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import threading
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from pycore.errors import PycoreError

STDOUT, STDERR = 1, 2
NOTE = 0
"""The stream of a chunk that is not the container's: a remark of the driver on what is missing here, for people."""

CHUNK = 1 << 16
"""Bytes that are read at once."""
BURST = 1 << 20
"""Bytes that the kernel moves for one container at once, before it is the next one's turn; also what a pipe is
widened to once it was found full, so that a container that floods is woken less often."""


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


class Follower:
    """Somebody who waits for output of some containers. One descriptor that a thread can sleep on."""

    def __init__(self, leave: Callable[[Follower], None]) -> None:
        self._leave = leave
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._news: set[str] = set()

    def fileno(self) -> int:
        """A descriptor that is readable when there is news."""
        return self._fd

    def tell(self, identity: str) -> None:
        """There is more of this container, or it has ended."""
        with self._lock:
            if not self._news and self._fd >= 0:
                os.eventfd_write(self._fd, 1)
            self._news.add(identity)

    def take(self) -> set[str]:
        """The containers that have news since the last call."""
        with self._lock:
            news, self._news = self._news, set()
            if news:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._fd)
            return news

    def wait(
        self, timeout: float | None = None, hangups: Collection[int] = (), interrupts: Collection[int] = ()
    ) -> set[int]:
        """Until there is news, or the time (in seconds) is over; or something is up with who waits.

        Returns those of ``hangups`` that have hung up, and those of ``interrupts`` that can be read from or have hung
        up: a client's streams, and its connection, on which it passes signals on. Empty where there is news.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        for fd in hangups:
            poll.register(fd, select.POLLRDHUP)
        for fd in interrupts:
            poll.register(fd, select.POLLRDHUP | select.POLLIN)
        ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        return {fd for fd, _ in ready} - {self._fd}

    def close(self) -> None:
        """Stop following."""
        self._leave(self)
        with self._lock:
            fd, self._fd = self._fd, -1
        os.close(fd)


class Tap:
    """A container's output as it comes, for one listener, in a bounded buffer: what is not taken in time is lost."""

    SIZE = 1 << 20
    """Bytes that are held for a listener who does not listen."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._held: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._lost = 0
        self.leave: Callable[[], None] = lambda: None
        """Stop listening; set by who made the tap."""

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to take."""
        return self._fd

    def put(self, stream: int, data: bytes) -> None:
        """Hold it, and let go of the oldest if that is too much. Called on the pump's thread; never waits."""
        with self._lock:
            if self._fd < 0:
                return
            if not self._held:
                os.eventfd_write(self._fd, 1)
            self._held.append((stream, data))
            self._size += len(data)
            while self._size > self.SIZE:
                _, old = self._held.popleft()
                self._size -= len(old)
                self._lost += len(old)

    def take(self) -> tuple[list[tuple[int, bytes]], int]:
        """What there is, as (stream, data), and how many bytes before it were lost."""
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
            held, self._held = list(self._held), deque()
            lost, self._size, self._lost = self._lost, 0, 0
        return held, lost

    def close(self) -> None:
        """Stop listening."""
        self.leave()
        with self._lock:
            fd, self._fd = self._fd, -1
        os.close(fd)


_Member = TypeVar("_Member")

Listener = Callable[[int, bytes], None]
"""Called on the pump's thread with a stream and what it brought: must be quick, and must not wait."""


class _Channel:
    """A running container's output."""

    def __init__(self, identity: str, sink: LogSink | None) -> None:
        self.identity = identity
        self.drained = threading.Event()
        self.sources: set[_Source] = set()
        self.use(sink)

    def use(self, sink: LogSink | None) -> None:
        """Let the output go there from now on."""
        self.sink = sink
        self.pipe_sink = sink if isinstance(sink, PipeSink) else None


@dataclass(eq=False)
class _Source:
    """One descriptor that output comes from."""

    fd: int
    stream: int
    channel: _Channel
    is_pipe: bool
    wide: bool = False
    """Whether the pipe is as wide as it gets."""


class LogPump(threading.Thread):
    """Moves the output of all containers of an engine to their logs, in one thread.

    ``on_lost`` is told, on the pump's thread, when output of a container cannot be kept: once per container, with
    its id and the system's reason. The container runs on.
    """

    def __init__(self, on_lost: Callable[[str, str], None] = lambda identity, reason: None) -> None:
        super().__init__(name="pycore-logs", daemon=True)
        self._on_lost = on_lost
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._lock = threading.Lock()
        """Held while the tables below are changed; the thread only looks, and sees each value whole."""
        self._sources: dict[int, _Source] = {}
        self._channels: dict[str, _Channel] = {}
        self._followers: dict[str, tuple[Follower, ...]] = {}
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._lost: dict[str, int] = {}
        self._changes: deque[Callable[[], None]] = deque()
        self._stopping = False
        self.start()

    # -- for everybody -----------------------------------------------------------------------------------

    def add(self, identity: str, sink: LogSink | None, outputs: Mapping[int, int]) -> threading.Event:
        """Move a container's output, ``outputs`` being stream to descriptor: the read end of a pipe, or a terminal.

        The descriptors become the pump's, and non-blocking. The event is set when all have ended and the sink is
        closed. Without a sink the output is read and thrown away, so that the container never waits.
        """
        channel = _Channel(identity, sink)
        with self._lock:
            self._lost.pop(identity, None)
            self._channels[identity] = channel
            for stream, fd in outputs.items():
                os.set_blocking(fd, False)
                source = _Source(fd, stream, channel, stat.S_ISFIFO(os.fstat(fd).st_mode))
                channel.sources.add(source)
                self._sources[fd] = source
        for fd in outputs.values():
            self._poll.register(fd, select.EPOLLIN)
        if not outputs:
            self._close(channel)
        return channel.drained

    def change(self, identity: str, log: Log) -> None:
        """Let the log be opened anew: the spec of a running container has changed. One that has ended is fine."""
        self._changes.append(lambda: self._reopen(identity, log))
        os.eventfd_write(self._wake, 1)

    def follow(self, identities: Collection[str]) -> Follower:
        """Wake somebody whenever there is more of these containers, or one of them has ended."""

        def leave(follower: Follower) -> None:
            with self._lock:
                for identity in identities:
                    self._take_out(self._followers, identity, follower)

        follower = Follower(leave)
        with self._lock:
            for identity in identities:
                self._followers[identity] = (*self._followers.get(identity, ()), follower)
        return follower

    def listen(self, identity: str, listener: Listener) -> Callable[[], None]:
        """Call somebody with whatever a container writes from now on. Returns how to stop."""

        def leave() -> None:
            with self._lock:
                self._take_out(self._listeners, identity, listener)

        with self._lock:
            self._listeners[identity] = (*self._listeners.get(identity, ()), listener)
        return leave

    def tap(self, identity: str) -> Tap:
        """A container's output from now on, for somebody who takes it when he likes."""
        tap = Tap()
        tap.leave = self.listen(identity, tap.put)
        return tap

    def tell(self, identity: str) -> None:
        """Something has become of a container: let its followers look again."""
        for follower in self._followers.get(identity, ()):
            follower.tell(identity)

    def lost(self, identity: str) -> int:
        """Bytes of a container's output that could not be kept since it was last started or taken over."""
        return self._lost.get(identity, 0)

    def stop(self) -> None:
        """End the thread and let go of all; what is in the pipes stays there, for who holds them too."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self.join(5)
        for source in self._sources.values():
            os.close(source.fd)
        for channel in self._channels.values():
            if channel.sink:
                channel.sink.close()
        os.close(self._wake)
        self._poll.close()

    @staticmethod
    def _take_out(table: dict[str, tuple[_Member, ...]], identity: str, member: _Member) -> None:
        rest = tuple(each for each in table.get(identity, ()) if each is not member)
        if rest:
            table[identity] = rest
        else:
            table.pop(identity, None)

    # -- the thread --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Move what is there, a bounded piece of each in turn: one that floods does not starve the others."""
        while not self._stopping:
            for fd, _ in self._poll.poll():
                source = self._sources.get(fd)
                if source:
                    self._move(source)
                elif fd == self._wake:
                    self._take_changes()

    def _take_changes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._changes:
            self._changes.popleft()()

    def _reopen(self, identity: str, log: Log) -> None:
        channel = self._channels.get(identity)
        if channel is None:
            return
        if channel.sink:
            channel.sink.close()
        channel.use(None)  # what cannot be opened anew is thrown away, and said
        try:
            channel.use(log.open())
        except (OSError, PycoreError) as error:
            self._lose(channel, 0, str(error))

    def _move(self, source: _Source) -> None:
        listeners = self._listeners.get(source.channel.identity, ())
        try:
            if source.is_pipe and source.channel.pipe_sink:
                length = self._splice(source, source.channel.pipe_sink, listeners)
            else:
                length = self._copy(source, listeners)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says once no program has it open
                self._lose(source.channel, 0, str(error))
            length = 0
        if length:
            self.tell(source.channel.identity)
        else:
            self._finish(source)

    def _splice(self, source: _Source, sink: PipeSink, listeners: tuple[Listener, ...]) -> int:
        """Let the kernel move it; listeners get it from the sink. Where that fails, read it: it is lost, or copied."""
        try:
            length = sink.splice(source.stream, source.fd, CHUNK if listeners else BURST)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS):  # not between these two kinds of files
                source.is_pipe = False
            return self._copy(source, listeners)
        if length >= CHUNK and not source.wide:
            source.wide = True
            with contextlib.suppress(OSError):  # more than /proc/sys/fs/pipe-max-size, without CAP_SYS_RESOURCE
                fcntl.fcntl(source.fd, fcntl.F_SETPIPE_SZ, BURST)
        if listeners and length:
            self._pass_on(source, sink.recent(source.stream, length), listeners)
        return length

    def _copy(self, source: _Source, listeners: tuple[Listener, ...]) -> int:
        data = os.read(source.fd, CHUNK)
        if data:
            self._keep(source, data)
            self._pass_on(source, data, listeners)
        return len(data)

    def _pass_on(self, source: _Source, data: bytes, listeners: tuple[Listener, ...]) -> None:
        for listener in listeners:
            try:
                listener(source.stream, data)
            except Exception:  # a defect of the listener's: the others, and the log, must not suffer from it
                traceback.print_exc()
                with self._lock:
                    self._take_out(self._listeners, source.channel.identity, listener)

    def _keep(self, source: _Source, data: bytes) -> None:
        sink = source.channel.sink
        if sink is None:
            return
        try:
            kept = sink.write(source.stream, data)
        except Exception as error:  # also a defect of a driver: the container runs on whatever its log does
            self._lose(source.channel, len(data), (error.strerror if isinstance(error, OSError) else "") or str(error))
        else:
            if kept < len(data):
                self._lose(source.channel, len(data) - kept, os.strerror(errno.ENOSPC))

    def _lose(self, channel: _Channel, length: int, reason: str) -> None:
        first = channel.identity not in self._lost
        self._lost[channel.identity] = self._lost.get(channel.identity, 0) + length
        if first:
            self._on_lost(channel.identity, reason)

    def _finish(self, source: _Source) -> None:
        channel = source.channel
        self._poll.unregister(source.fd)
        with self._lock:
            del self._sources[source.fd]
            os.close(source.fd)
            channel.sources.discard(source)
            over = not channel.sources
        if over:
            self._close(channel)

    def _close(self, channel: _Channel) -> None:
        if channel.sink:
            channel.sink.close()
        with self._lock:
            if self._channels.get(channel.identity) is channel:
                del self._channels[channel.identity]
        channel.drained.set()
        self.tell(channel.identity)
