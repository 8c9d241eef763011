"""What a spawner and a launcher must agree on before one starts containers through the other.

A spawner may be older than the launcher that finds it: pycore was upgraded while containers ran. What such a
spawner looks after is still told and handed over, so the frames for that never change their meaning: ``adopt``,
``living``, ``adopted``, ``exited``. Frames that start something do, and then :data:`PROTOCOL` is another.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

PROTOCOL = 5

_CLOCK_REALTIME_COARSE = 5
"""clock_gettime(2), from linux/time.h; Python has no name for it."""

DIRECTORY = "spawners"
"""Below the run dir: the socket of each spawner, ``PID.sock``."""


def code() -> list[str]:
    """Which interpreter this is, and where it takes code from: another place may hold another pycore, or plugins."""
    return [sys.executable, *sys.path]


def stamp() -> int:
    """Now, on the clock that file systems take their times from, in nanoseconds since 1970.

    It goes in ticks of some milliseconds and lags behind the exact one: what is replaced just after an exact time may
    bear an earlier one.
    """
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def is_replaced(since: int) -> bool:
    """Whether any loaded code has been replaced on disk since a :func:`stamp`: then this process is old.

    The change time of the inode counts, since installers put files in place with modification times of long ago.
    """
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    try:
        return any(os.stat(file).st_ctime_ns >= since for file in files if file)
    except OSError:
        return True


def fits(answer: dict[str, Any]) -> bool:
    """Whether the spawner that gave this answer to ``adopt`` runs our code."""
    return answer.get("protocol") == PROTOCOL and answer.get("code") == code() and not answer.get("replaced")
