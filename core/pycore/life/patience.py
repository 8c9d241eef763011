"""How long to wait for one of many that come one after the other: as long as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable


def happens(event: threading.Event, seconds: float, moved: Callable[[], object]) -> bool:
    """Wait for an event as long as something comes forward; whether it has happened.

    ``moved`` returns another value whenever something has: only where that stays the same for ``seconds`` nothing
    more is expected. So the last of a thousand may take a thousand times what one takes.
    """
    before = moved()
    while not event.wait(seconds):
        now = moved()
        if now == before:
            return event.is_set()
        before = now
    return True
