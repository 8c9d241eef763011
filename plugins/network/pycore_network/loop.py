"""One thread that waits for many sockets at once (epoll(7)), and is there only while there are any."""

from __future__ import annotations

import os
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

IN, OUT = select.EPOLLIN, select.EPOLLOUT

Handler = Callable[[int], None]
"""Called with what has come of a descriptor: bits of epoll(7)."""


class Loop:
    """What is called when there is something to do on a descriptor. Other threads may only post, catch_up and end.

    ``deadline`` says when ``expire`` is to be called next, by time.monotonic(), None for never. Both may be set until
    the first descriptor is watched.
    """

    def __init__(self, name: str) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, IN)
        self._handlers: dict[int, Handler] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._over = False
        self.deadline: Callable[[], float | None] = lambda: None
        self.expire: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, act: Callable[[], None]) -> None:
        """Have something done by the loop's thread, soon; from any thread."""
        self._posted.append(act)
        os.eventfd_write(self._wake, 1)

    def catch_up(self) -> None:
        """Wait until all that was posted is done; from another thread."""
        done = threading.Event()
        self.post(done.set)
        done.wait()

    def end(self) -> None:
        """End it once all that was posted is done, and wait for that; from another thread."""
        self.post(self._end)
        self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def _end(self) -> None:
        self._over = True

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call a handler whenever there is something of ``events`` on a descriptor."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a descriptor from now on."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Wait no more for a descriptor, which is about to be closed."""
        if self._handlers.pop(fd, None):
            self._epoll.unregister(fd)

    def _run(self) -> None:
        while not self._over:
            deadline = self.deadline()
            timeout = -1 if deadline is None else max(0.0, deadline - time.monotonic())
            for fd, events, handler in [
                (fd, events, self._handlers.get(fd)) for fd, events in self._epoll.poll(timeout)
            ]:
                if fd == self._wake:
                    self._do_posted()
                elif handler and self._handlers.get(fd) is handler:  # one before it may have closed it, for another
                    _guarded(handler, events)
            _guarded(lambda _: self.expire(), 0)

    def _do_posted(self) -> None:
        os.eventfd_read(self._wake)
        while self._posted:
            _guarded(lambda _: self._posted.popleft()(), 0)


def _guarded(handler: Handler, events: int) -> None:
    """A mistake in one connection keeps no other from going on; it is told in the supervisor's log."""
    try:
        handler(events)
    except Exception:
        traceback.print_exc()
