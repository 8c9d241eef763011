"""Who is answered next: every source in turn, one query each.

Whoever asks more than can be answered has a long queue of its own; each other waits for one of its queries at most.
Sources are told apart by address, which no container can forge: the bridge lets through no other's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

EACH = 64
"""Queries that are kept of one source; the others are lost."""
_AT_ONCE = 32
"""Answered before the sockets are looked at again."""

Act = Callable[[], None]


class Turns:
    """What waits to be answered. For the loop's thread alone."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Act]] = {}
        """By source; the first is the next whose turn it is. An empty one is not kept."""

    def put(self, source: str, act: Act, most: int = EACH) -> bool:
        """Let something be done when it is the source's turn; whether there was room for it."""
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = deque()
        if len(queue) >= most:
            return False
        queue.append(act)
        return True

    @property
    def waiting(self) -> bool:
        """Whether there is something to do."""
        return bool(self._queues)

    def serve(self) -> None:
        """Do some of it."""
        for _ in range(_AT_ONCE):
            if not self._queues:
                return
            source = next(iter(self._queues))
            queue = self._queues.pop(source)
            act = queue.popleft()
            if queue:
                self._queues[source] = queue  # behind all others
            act()
