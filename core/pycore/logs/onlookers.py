"""Who looks on while a container writes: woken by a descriptor, and never able to hold the log up."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Collection


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
