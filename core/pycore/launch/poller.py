"""One thread that waits for many descriptors (epoll(7)): spawners that say something, processes that end."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

READABLE, HANGUP = select.EPOLLIN, select.EPOLLHUP

Act = Callable[[int], None]
"""Called on the poller's thread with the events that there are."""


class Poller(threading.Thread):
    """Descriptors stay their owners', who close them on this thread or when it has been stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._epoll = select.epoll()
        self._acts: dict[int, Act] = {}
        self._woken = os.eventfd(0, os.EFD_CLOEXEC)
        self._stopping = False
        self._epoll.register(self._woken, READABLE)
        self.start()

    def add(self, fd: int, act: Act, events: int = READABLE) -> None:
        """Call ``act`` whenever there is what is waited for, or the descriptor has hung up. Any thread may."""
        self._acts[fd] = act
        self._epoll.register(fd, events)

    def only_hangup(self, fd: int) -> None:
        """From now on wait for its hanging up alone, which epoll always tells."""
        self._epoll.modify(fd, 0)

    def remove(self, fd: int) -> None:
        """Wait for it no longer."""
        if self._acts.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        while not self._stopping:
            # One at a time: the act may close another's descriptor, and its number be given to a new one.
            for fd, events in self._epoll.poll(maxevents=1):
                act = self._acts.get(fd)
                if act:
                    act(events)

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        os.eventfd_write(self._woken, 1)
        self.join(5)
        self._epoll.close()
        os.close(self._woken)
