"""What is to be done later: one thread, a heap of (time, act), and helpers for acts that take their time.

The thread sleeps exactly until the next act is due, for good while there is none. Acts that may block are
handed to a pool, so that none delays another. An act that fails is reported, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Literal

from pycore.life.pool import Pool

Act = Callable[[], object]
Report = Callable[[BaseException], None]

Lane = Literal["work", "ask"]
"""Which helpers do an act: those for work, or those that ask containers and may hang for as long as a container
likes. Neither keeps the other waiting."""

_HELPERS: dict[Lane, int] = {"work": 32, "ask": 128}

_FEW = 64
"""So many cancelled acts may lie in the heap before it is worth the while to take them out."""


class Later:
    """An act that is to be done; :meth:`cancel` takes it back."""

    __slots__ = ("_watch", "act", "due", "lane")

    def __init__(self, watch: Watch, due: float, act: Act | None, lane: Lane | None) -> None:
        self._watch = watch
        self.due = due
        """When, on the watch's clock, in seconds."""
        self.act = act
        """None once it was begun or cancelled."""
        self.lane: Lane | None = lane
        """Whose helpers do it; None: the watch's own thread."""

    def cancel(self) -> bool:
        """Take it back; False where it has been begun already, or was cancelled before."""
        return self._watch.forget(self)


class Watch:
    """Does acts at their times. All methods may be called from any thread, from acts too.

    For tests, ``clock`` can be any function and ``threaded`` off: then nothing happens but in :meth:`run_due`.
    """

    def __init__(
        self,
        report: Report | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        threaded: bool = True,
    ) -> None:
        self.clock = clock
        self._report = report or _print
        self._threaded = threaded
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Later]] = []
        self._cancelled = 0
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._pools: dict[Lane, Pool] = {}
        self._closed = False

    def at(self, seconds: float, act: Act, *, slow: bool = False, lane: Lane = "work") -> Later:
        """Do something ``seconds`` from now; what was due before is done before.

        ``slow`` means that it may block: a helper of the ``lane`` does it. After :meth:`close` it is not done at all.
        """
        later = Later(self, self.clock() + max(0.0, seconds), act, lane if slow else None)
        with self._changed:
            if self._closed:
                later.act = None
                return later
            heapq.heappush(self._heap, (later.due, next(self._order), later))
            if self._heap[0][2] is later:
                self._wake()
        return later

    def hand(self, act: Act, lane: Lane = "work") -> None:
        """Have something done at once by a helper; nothing after :meth:`close`."""
        if not self._threaded:
            self._do(act)
            return
        with self._changed:
            if self._closed:
                return
            pool = self._pools.get(lane)
            if pool is None:
                pool = self._pools[lane] = Pool(f"pycore-{lane}", _HELPERS[lane])
        pool.submit(lambda: self._do(act))

    def forget(self, later: Later) -> bool:
        """What :meth:`Later.cancel` does."""
        with self._changed:
            if later.act is None:
                return False
            later.act = None
            self._cancelled += 1
            if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].act]
                heapq.heapify(self._heap)
                self._cancelled = 0
        return True

    def pending(self) -> int:
        """How many acts are still to be begun."""
        with self._changed:
            return len(self._heap) - self._cancelled

    def run_due(self) -> float | None:
        """Do all that is due by now. Returns the seconds until the next act, or None where there is none."""
        while True:
            with self._changed:
                later = self._next()
                wait = None if later is None else later.due - self.clock()
                if later is None or wait is None or wait > 0:
                    return wait
                heapq.heappop(self._heap)
                act, later.act = later.act, None
            if act:
                self._begin(act, later.lane)

    def close(self) -> None:
        """Do nothing more. An act that is being done on the watch's own thread has ended when this returns."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._cancelled = 0
            thread, pools = self._thread, [*self._pools.values()]
            self._changed.notify()
        for pool in pools:
            pool.close()
        if thread and thread is not threading.current_thread():
            thread.join()

    def _next(self) -> Later | None:
        """The next act that was not cancelled; the lock is held."""
        while self._heap and self._heap[0][2].act is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][2] if self._heap else None

    def _wake(self) -> None:
        """There is a new first act; the lock is held."""
        if not self._threaded:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pycore-watch", daemon=True)
            self._thread.start()
        else:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            self.run_due()
            with self._changed:
                if self._closed:
                    return
                later = self._next()
                self._changed.wait(None if later is None else max(0.0, later.due - self.clock()))

    def _begin(self, act: Act, lane: Lane | None) -> None:
        if lane:
            self.hand(act, lane)
        else:
            self._do(act)

    def _do(self, act: Act) -> None:
        try:
            act()
        except Exception as error:
            with contextlib.suppress(Exception):
                self._report(error)


def _print(error: BaseException) -> None:
    traceback.print_exception(error, file=sys.stderr)
