"""Fills all logs: one thread, and no byte passes through Python where it need not.

The pump waits for all pipes at once and moves what is there. A sink that can take a pipe's content as it is
(:class:`pycore.logs.PipeSink`) lets the kernel do it; whoever is killed in the middle has then neither lost nor
doubled a byte.
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
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from pycore.errors import PycoreError
from pycore.logs import CHUNK, Log, LogSink, PipeSink, WaitingSink
from pycore.logs.onlookers import Follower, Tap

BURST = 1 << 20
"""Bytes that the kernel moves for one container at once, before it is the next one's turn; also what a pipe is
widened to once it was found full, so that a container that floods is woken less often."""

_Member = TypeVar("_Member")

Listener = Callable[[int, bytes], None]
"""Called on the pump's thread with a stream and what it brought: must be quick, and must not wait."""


@contextlib.contextmanager
def _survived() -> Generator[list[Exception], None, None]:
    """A defect of somebody else's code is reported, and ends nothing: other containers' output depends on us."""
    failed: list[Exception] = []
    try:
        yield failed
    except Exception as error:
        traceback.print_exc()
        failed.append(error)


_abilities: dict[type[object], tuple[bool, bool]] = {}
"""Kinds of sinks, and whether they are :class:`PipeSink` and :class:`WaitingSink`.

Looked up once: comparing methods takes as long as all else that a take-over does for a container's output.
"""


class _Channel:
    """A running container's output."""

    def __init__(self, identity: str, sink: LogSink | None) -> None:
        self.identity = identity
        self.drained = threading.Event()
        self.sources: set[_Source] = set()
        self.parked = False
        self.use(sink)

    def use(self, sink: LogSink | None) -> None:
        """Let the output go there from now on."""
        self.sink = sink
        kind = type(sink)
        if kind not in _abilities:
            _abilities[kind] = isinstance(sink, PipeSink), isinstance(sink, WaitingSink)
        pipe, waiting = _abilities[kind]
        self.pipe_sink = cast(PipeSink, sink) if pipe else None
        self.waiting_sink = cast(WaitingSink, sink) if waiting else None

    def close(self) -> None:
        """Nothing more comes."""
        if self.sink:
            with _survived():
                self.sink.close()


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
        self._parked: dict[int, _Channel] = {}
        """Containers whose sinks wait, by the descriptor that they wait for; their output waits in its pipes."""
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
            channel.close()
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
                if fd in self._parked:
                    self._resume(fd)
                elif source:
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
        for fd in [fd for fd, parked in self._parked.items() if parked is channel]:
            self._unpark(fd)
        channel.close()
        channel.use(None)  # what cannot be opened anew is thrown away, and said
        try:
            channel.use(log.open())
        except (OSError, PycoreError) as error:
            self._lose(channel, 0, str(error))

    def _move(self, source: _Source) -> None:
        if source.channel.parked:
            return
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
            data = sink.recent(source.stream, length) if listeners and length else b""
        except BlockingIOError:
            raise
        except Exception as error:  # the disk is full, or a driver has a defect: what is said then is said of a copy
            if isinstance(error, OSError) and error.errno in (errno.EINVAL, errno.ENOSYS):
                source.is_pipe = False  # not between these two kinds of files
            return self._copy(source, listeners)
        if length >= CHUNK and not source.wide:
            source.wide = True
            with contextlib.suppress(OSError):  # more than /proc/sys/fs/pipe-max-size, without CAP_SYS_RESOURCE
                fcntl.fcntl(source.fd, fcntl.F_SETPIPE_SZ, BURST)
        if data:
            self._pass_on(source, data, listeners)
        return length

    def _copy(self, source: _Source, listeners: tuple[Listener, ...]) -> int:
        data = os.read(source.fd, CHUNK)
        if data:
            self._keep(source, data)
            self._pass_on(source, data, listeners)
        return len(data)

    def _pass_on(self, source: _Source, data: bytes, listeners: tuple[Listener, ...]) -> None:
        for listener in listeners:
            with _survived() as failed:
                listener(source.stream, data)
            if failed:
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
            self._park(source.channel)

    def _park(self, channel: _Channel) -> None:
        """Leave a container's output where it is, for as long as its sink waits for somebody."""
        fd = channel.waiting_sink.blocked() if channel.waiting_sink else None
        if fd is None:
            return
        for source in channel.sources:
            self._poll.unregister(source.fd)
        channel.parked = True
        self._parked[fd] = channel
        self._poll.register(fd, select.EPOLLOUT)

    def _unpark(self, fd: int) -> None:
        channel = self._parked.pop(fd)
        channel.parked = False
        with contextlib.suppress(OSError):  # it has been closed, and another opened
            self._poll.unregister(fd)
        for source in channel.sources:
            self._poll.register(source.fd, select.EPOLLIN)

    def _resume(self, fd: int) -> None:
        channel = self._parked[fd]
        assert channel.waiting_sink
        try:
            channel.waiting_sink.resume()
        except Exception as error:  # likewise
            self._lose(channel, 0, str(error))
        self._unpark(fd)
        self._park(channel)

    def _lose(self, channel: _Channel, length: int, reason: str) -> None:
        first = channel.identity not in self._lost
        self._lost[channel.identity] = self._lost.get(channel.identity, 0) + length
        if first:
            with _survived():
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
        channel.close()
        with self._lock:
            if self._channels.get(channel.identity) is channel:
                del self._channels[channel.identity]
        channel.drained.set()
        self.tell(channel.identity)
