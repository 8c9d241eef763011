"""Runs operations of the host side, takes them back, and says how long each took.

The journal is the caller's: a container's record lists its operations before the first of them runs, and
undo is idempotent, so whoever finds the record after a crash can take all of them back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pycore.errors import OperationError, PycoreError
from pycore.ops import Context, Operation, failure


@dataclass(frozen=True)
class Timing:
    """How long one operation took, or one of the core's own acts (clone, exec)."""

    container: str
    step: str
    what: str
    seconds: float


@dataclass
class Executor:
    """Runs lists of operations."""

    watched: dict[str, list[Timing]] = field(default_factory=dict[str, list[Timing]])
    """Where the timings of an app's containers are collected, by the app's name; nobody else's are kept."""
    on_boundary: Callable[[str, Operation], None] | None = None
    """Called with ``before`` or ``after`` around every ``do`` and ``undo``: where tests inject faults."""
    on_change: Callable[[], None] | None = None
    """Called when operations have been done, or taken back."""
    _clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def run(self, operations: Sequence[Operation], ctx: Context) -> None:
        """Do all, in order. Raises OperationError for the first that fails; nothing is undone here."""
        for operation in operations:
            started = self._clock()
            self._boundary("before", operation)
            try:
                operation.do(ctx)
            except OSError as error:
                raise failure(OperationError, operation, error, ctx.container) from error
            self._boundary("after", operation)
            self.note(ctx.container, operation.step.name.lower(), operation.explain, started)
        if operations and self.on_change:
            self.on_change()

    def undo(self, operations: Sequence[Operation], ctx: Context) -> list[str]:
        """Take all back, last first. What fails is returned in words and does not stop the rest."""
        failures: list[str] = []
        for operation in reversed(operations):
            self._boundary("before", operation)
            try:
                operation.undo(ctx)
            except OSError as error:
                failures.append(f"undo {operation.explain()}: {error.strerror or error}")
            except PycoreError as error:
                failures.append(f"undo {operation.explain()}: {error.message}")
            self._boundary("after", operation)
        if operations and self.on_change:
            self.on_change()
        return failures

    def note(self, container: str, step: str, what: Callable[[], str], started: float) -> None:
        """Keep a timing that began at ``started``; the words are made only where somebody wants them."""
        timings = self.watched.get(container.partition("/")[0])
        if timings is not None:
            timings.append(Timing(container, step, what(), self._clock() - started))

    def clock(self) -> float:
        """Seconds on the clock that timings are taken with."""
        return self._clock()

    def _boundary(self, when: str, operation: Operation) -> None:
        if self.on_boundary:
            self.on_boundary(when, operation)
