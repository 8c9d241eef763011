"""Clock and scales: how long something takes, how much memory is held."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from holdings import pss


@dataclass
class Times:
    """Durations of the same thing, in seconds."""

    seconds: list[float] = field(default_factory=list[float])

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def seconds_of(act: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def in_turns(contenders: Mapping[str, Callable[[], object]], turns: int, limit: float) -> dict[str, Times]:
    """Time all contenders in turns, so that what else the host does meets each alike.

    The first turn warms up and is not counted. Ends after ``turns``, or ``limit`` seconds.
    """
    times = {name: Times() for name in contenders}
    began = time.perf_counter()
    for turn in range(turns + 1):
        for name, act in contenders.items():
            took = seconds_of(act)
            if turn:
                times[name].seconds.append(took)
        if turn and time.perf_counter() - began > limit:
            break
    return times


def held_memory(words: Set[str]) -> int:
    """Bytes held by the processes of this pid namespace that have one of the words in their command line."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program, *arguments = (process / "cmdline").read_text().split("\0")
            if words.isdisjoint({program.rpartition("/")[2], *arguments}):
                continue
            total += pss(int(process.name))
        except (OSError, ProcessLookupError):  # it has just ended
            continue
    return total
