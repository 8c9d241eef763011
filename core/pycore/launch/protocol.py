"""What a spawner and a launcher must agree on before one starts containers through the other.

A spawner may be older than the launcher that finds it: pycore was upgraded while containers ran. What such a
spawner looks after is still told and handed over, so the frames for that never change their meaning: ``adopt``,
``living``, ``adopted``, ``exited``. Frames that start something do, and then :data:`PROTOCOL` is another.
"""

from __future__ import annotations

import os
import sys
from typing import Any

PROTOCOL = 2

DIRECTORY = "spawners"
"""Below the run dir: the socket of each spawner, ``PID.sock``."""


def code() -> list[str]:
    """Which interpreter this is, and where it takes code from: another place may hold another pycore, or plugins."""
    return [sys.executable, *sys.path]


def is_replaced(since: float) -> bool:
    """Whether any loaded code has been replaced on disk since a time (seconds since 1970): then this process is old.

    The change time of the inode counts, since installers put files in place with modification times of long ago.
    """
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    try:
        return any(os.stat(file).st_ctime > since for file in files if file)
    except OSError:
        return True


def fits(answer: dict[str, Any]) -> bool:
    """Whether the spawner that gave this answer to ``adopt`` runs our code."""
    return answer.get("protocol") == PROTOCOL and answer.get("code") == code() and not answer.get("replaced")
