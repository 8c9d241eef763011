"""A thread that shows what has changed, so that whoever changes it never waits for a terminal or a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_PAUSE = 0.05
"""Seconds between two paintings: what changes faster nobody reads."""


class Painter:
    """Calls ``paint`` soon after something has changed, once for all that changed meanwhile, and once at the end.

    It runs in a thread of its own, that is there from the first change on, and ends where ``paint`` raises OSError:
    who looked on is gone, and what is shown goes on.
    """

    def __init__(self, paint: Callable[[], None]) -> None:
        self._paint = paint
        self._news = threading.Condition(threading.Lock())
        self._dirty = self._closed = False
        self._thread: threading.Thread | None = None

    def changed(self) -> None:
        """There is something new to be shown."""
        with self._news:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pycore-painter", daemon=True)
                self._thread.start()
            self._dirty = True
            self._news.notify()

    def close(self) -> None:
        """Show what is not shown yet, and end."""
        with self._news:
            self._closed = self._dirty = True
            self._news.notify()
        if self._thread:
            self._thread.join(10)

    def _run(self) -> None:
        closed = False
        while not closed:
            with self._news:
                self._news.wait_for(lambda: self._dirty)
                self._dirty, closed = False, self._closed
            try:
                self._paint()
            except OSError:
                return
            if not closed:
                time.sleep(_PAUSE)
