"""How often something is tried that may pass, and how long is waited in between."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Protocol

from pycore_images.registry.errors import Busy, Cancelled, Unreachable


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


class Tries:
    """Those of one thing that is to be done. ``cancel`` ends a wait."""

    def __init__(self, patience: Patience, cancel: Cancel) -> None:
        self._patience, self._cancel = patience, cancel
        self._failed = 0

    def failed(self, error: Unreachable | Busy) -> None:
        """Wait until it is time for the next. Raises the error where there is no use in one more, or Cancelled."""
        self._failed += 1
        patience, asked = self._patience, error.wait if isinstance(error, Busy) else None
        if self._failed >= patience.tries or (asked or 0) > patience.longest_asked:
            raise error
        delay = min(patience.delay * 2.0 ** (self._failed - 1), patience.longest) * random.uniform(0.5, 1.0)
        if self._cancel.wait(max(asked or 0, delay)):
            raise Cancelled("broken off") from error


USUAL = Patience()


def never() -> Cancel:
    """For nobody who would break off."""
    return threading.Event()
