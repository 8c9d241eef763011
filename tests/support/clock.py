"""A clock on which waiting takes no time, and is noted."""

from __future__ import annotations


class Clock:
    """In the place of an event that breaks something off, which never comes."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        return False

    def waited_between(self, *bounds: tuple[float, float]) -> bool:
        """Whether there were so many waits, each within its bounds."""
        return len(self.waits) == len(bounds) and all(
            least <= wait <= most for wait, (least, most) in zip(self.waits, bounds, strict=True)
        )
