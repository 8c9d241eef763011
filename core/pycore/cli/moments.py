"""Times on the command line: a moment (a date, seconds since 1970, a time back from now), and how long."""

from __future__ import annotations

import time
from datetime import datetime

from pycore.errors import UsageError
from pycore.spec import parse_duration


def moment(word: str, now: float | None = None) -> float:
    """Seconds since 1970 of ``2026-03-01T12:00:00Z``, ``1772366400.5``, or ``10m`` (so long ago). Raises UsageError.

    A date without a zone is in the host's.
    """
    try:
        return float(word) if _is_number(word) else datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return (time.time() if now is None else now) - parse_duration(word)
    except ValueError:
        raise UsageError(
            f"{word} is no moment",
            hint='write a date (2026-03-01T12:00:00Z), seconds since 1970, or a time ago ("10m")',
        ) from None


def seconds(word: str) -> float:
    """How long something may take, as ``-t`` says it. Raises ValueError."""
    found = float(word)
    if not 0 <= found < 1e9:
        raise ValueError
    return found


def _is_number(word: str) -> bool:
    whole, _, part = word.partition(".")
    return whole.isascii() and whole.isdigit() and len(whole) < 13 and (not part or (part.isascii() and part.isdigit()))
