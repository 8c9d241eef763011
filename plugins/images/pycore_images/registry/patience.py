"""How often something is tried that may pass, and how long is waited in between."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Protocol

from pycore_images.registry.errors import Busy, Cancelled


class Cancel(Protocol):
    """An event that, once set, breaks off what goes on: a :class:`threading.Event`, or what is like it."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or so many seconds; whether it is."""
        ...


@dataclass(frozen=True)
class Patience:
    """Times in seconds. Each wait is up to twice as long as the one before; how long exactly is left to chance, so that
    many who were turned away together do not come back together.
    """

    tries: int = 5
    delay: float = 0.5
    longest: float = 10.0
    """Of the waits that we choose,"""
    longest_asked: float = 60.0
    """and of one that the other side asks for: more than this is not waited for."""

    def wait(self, tried: int, asked: float | None, cancel: Cancel) -> None:
        """Before the next try. Raises Cancelled as soon as that is set."""
        delay = min(self.delay * 2.0 ** (tried - 1), self.longest) * random.uniform(0.5, 1.0)
        if cancel.wait(delay if asked is None else max(asked, delay)):
            raise Cancelled("broken off")

    def ends(self, tried: int, error: Exception) -> bool:
        """Whether there is no use in one more try."""
        asked = error.wait if isinstance(error, Busy) else None
        return tried >= self.tries or (asked is not None and asked > self.longest_asked)


USUAL = Patience()


def never() -> Cancel:
    """For nobody who would break off."""
    return threading.Event()
