"""A few threads for work that may block, made when there is work and gone when there is none for a while.

Unlike those of :mod:`concurrent.futures` they never hold up the end of the process: a probe that hangs for
its whole timeout must not be waited for by a supervisor that ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

_IDLE = 10.0
"""Seconds that a thread waits for more work before it ends."""


class Pool:
    """At most ``most`` threads. Work that is submitted is begun in its order; who submits it has caught its errors."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._work: deque[Callable[[], object]] = deque()
        self._more = threading.Condition(threading.Lock())
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, act: Callable[[], object]) -> None:
        """Have something done as soon as a thread is free; nothing after :meth:`close`."""
        with self._more:
            if self._closed:
                return
            self._work.append(act)
            if len(self._work) > self._idle and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            else:
                self._more.notify()

    def close(self) -> None:
        """Begin nothing more. What has been begun goes on, and nobody waits for it."""
        with self._more:
            self._closed = True
            self._work.clear()
            self._more.notify_all()

    def _run(self) -> None:
        try:
            while act := self._take():
                act()
                del act  # what it holds on to must not live until the next piece of work comes
        finally:
            with self._more:
                self._threads -= 1

    def _take(self) -> Callable[[], object] | None:
        """The next piece of work; None after a while without any."""
        with self._more:
            while not self._work and not self._closed:
                self._idle += 1
                came = self._more.wait(_IDLE)
                self._idle -= 1
                if not came and not self._work:
                    return None
            return self._work.popleft() if self._work else None
