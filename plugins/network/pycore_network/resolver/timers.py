"""What is to be done later, on one thread: a heap of times."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Timer:
    """Something that is done once, unless it is cancelled before."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        """It is not to be done any more; done already is fine."""
        self.act = None


class Timers:
    """All of one thread's. ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def after(self, seconds: float, act: Callable[[], None]) -> Timer:
        """Do something so many seconds from now."""
        timer = Timer(act)
        heapq.heappush(self._heap, (self._clock() + seconds, next(self._order), timer))
        return timer

    def next(self) -> float | None:
        """When there is something to do, on the clock; None for never."""
        while self._heap and self._heap[0][2].act is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run_due(self) -> None:
        """Do all whose time has come."""
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            act, timer.act = timer.act, None
            if act:
                act()
