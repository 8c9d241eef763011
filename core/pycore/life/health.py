"""Whether a container is well: asked again and again, and the word that comes of the answers.

:class:`Health` is the state machine, without a clock of its own. :class:`HealthWatch` asks with the help of a
:class:`pycore.life.watch.Watch` and says when the word changes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from pycore.errors import PycoreError
from pycore.hookspecs import HealthCheck, Inside
from pycore.life.watch import Later, Watch

Word = Literal["starting", "healthy", "unhealthy"]

KEPT = 5
"""So many results are kept for ``inspect``."""
LONGEST = 4 << 10
"""Characters of an answer that are kept."""
_SOON = 0.1
"""Seconds from the start to the first question, which then come twice as far apart each time."""


@dataclass(frozen=True)
class Result:
    """What came of asking once."""

    time: float
    """When, in seconds since the epoch."""
    ok: bool
    output: str
    seconds: float
    """How long it took."""


_TICK = 0.001
"""What rounding may leave of a time that is over."""


class Health:
    """The word, and what it takes to change it. ``now`` is any clock's time in seconds, always the same clock's."""

    def __init__(self, check: HealthCheck, now: float, word: Word = "starting", age: float = 0.0) -> None:
        """``age`` is how many seconds the container has been running, ``word`` what is known of it from before."""
        self.check = check
        self.word: Word = word
        self.failures = 0
        """Failures in a row that count."""
        self.results: deque[Result] = deque(maxlen=KEPT)
        self._started = now - age
        self._asked = 0

    def feed(self, result: Result, asked: float) -> bool:
        """Take in what came of asking at that time. Returns whether the word has changed."""
        before = self.word
        self.results.append(result)
        self._asked += 1
        if result.ok:
            self.word, self.failures = "healthy", 0
        elif self.word != "starting" or not self._forgiven(asked):
            self.failures += 1
            if self.failures >= self.check.retries:
                self.word = "unhealthy"
        return self.word != before

    def delay(self, now: float) -> float:
        """Seconds until it is to be asked next.

        One that is starting is asked often, so that who waits for it need not wait long; a failure then does not
        count sooner than it would if it were asked every ``interval``.
        """
        if self.word == "starting" and self._forgiven(now):
            often = min(self.check.start_interval, self.check.interval, _SOON * 2.0 ** min(self._asked, 30))
            return min(often, max(_TICK, self._started + self._grace - now))
        return self.check.interval

    def to_json(self) -> dict[str, Any]:
        """For ``inspect``."""
        return {
            "status": self.word,
            "failing_streak": self.failures,
            "log": [asdict(result) for result in self.results],
        }

    @property
    def _grace(self) -> float:
        return max(self.check.start_period, self.check.interval)

    def _forgiven(self, now: float) -> bool:
        """Whether it is so soon after the start that a failure does not count."""
        return now - self._started < self._grace


OnChange = Callable[[Word, Result], object]


class HealthWatch:
    """Asks one run of a container, until :meth:`stop`. Made for a process that runs; all methods are quick.

    ``on_change`` is called with the new word and the answer that made it, on a helper's thread, which it may keep
    for as long as it needs. It can still come just after :meth:`stop`.
    """

    def __init__(
        self,
        watch: Watch,
        check: HealthCheck,
        inside: Inside,
        on_change: OnChange,
        *,
        word: str = "",
        age: float = 0.0,
    ) -> None:
        """``word`` and ``age`` of a container that was looked after before: the record's word, seconds it has run."""
        self._watch, self._on_change = watch, on_change
        known = cast(Word, word) if word in ("healthy", "unhealthy") else "starting"
        self.health = Health(check, watch.clock(), known, age)
        self._inside = _Held(inside.pid, os.dup(inside.pidfd), inside)
        self._lock = threading.Lock()
        self._later: Later | None = None
        self._asking = False
        self._paused = False
        self._pauses = 0
        self._stopped = False
        with self._lock:
            self._plan()

    def stop(self) -> None:
        """Ask no more: the process has ended, or is about to."""
        with self._lock:
            self._stopped = True
            self._unplan()
            if not self._asking:
                self._inside.close()

    def pause(self) -> None:
        """The container is frozen and cannot answer. What is being asked just now does not count."""
        with self._lock:
            self._paused = True
            self._pauses += 1
            self._unplan()

    def unpause(self) -> None:
        """It runs again."""
        with self._lock:
            self._paused = False
            self._plan()

    def change(self, check: HealthCheck) -> None:
        """Ask something else from now on; the word stays until an answer changes it."""
        with self._lock:
            self.health.check = check
            self._unplan()
            self._plan()

    def to_json(self) -> dict[str, Any]:
        """For ``inspect``: the word, and the last answers."""
        with self._lock:
            return self.health.to_json()

    def _plan(self) -> None:
        if not (self._stopped or self._paused or self._asking or self._later):
            self._later = self._watch.at(self.health.delay(self._watch.clock()), self._ask, slow=True, lane="ask")

    def _unplan(self) -> None:
        if self._later:
            self._later.cancel()
            self._later = None

    def _ask(self) -> None:
        with self._lock:
            if self._stopped or self._paused or self._asking:
                return
            self._asking, self._later = True, None
            check, pauses = self.health.check, self._pauses
        changed: Result | None = None
        asked = self._watch.clock()
        try:
            result = ask(check, self._inside)
            with self._lock:
                counts = not self._stopped and check is self.health.check and pauses == self._pauses
                if counts and self.health.feed(result, asked):
                    changed = result
                word = self.health.word
            if changed:
                self._on_change(word, changed)
        finally:
            with self._lock:
                self._asking = False
                self._plan()
                if self._stopped:
                    self._inside.close()


def ask(check: HealthCheck, inside: Inside) -> Result:
    """Ask once. Whatever goes wrong is a result too."""
    moment, began = time.time(), time.monotonic()
    try:
        ok, output = True, check.probe.ask(inside, check.timeout)
    except PycoreError as error:
        ok, output = False, error.message
    except Exception as error:  # a third party's probe: anything can come out of it
        ok, output = False, f"{type(error).__name__}: {error}"
    return Result(moment, ok, output[-LONGEST:], round(time.monotonic() - began, 6))


class _Held:
    """A container as a probe sees it, with a pidfd that is ours: the engine's own may be closed while a probe runs."""

    def __init__(self, pid: int, pidfd: int, inside: Inside) -> None:
        self.pid, self.pidfd = pid, pidfd
        self._inside = inside

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, bytes]:
        return self._inside.execute(command, timeout)

    def close(self) -> None:
        fd, self.pidfd = self.pidfd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
