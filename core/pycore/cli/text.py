"""Words for people: short, in columns, and harmless to the terminal that shows them.

What a container is called, runs and says is chosen by whoever wrote its spec or its image, and a terminal
obeys what it is sent. So control characters never reach it: they are shown as escapes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns the direction of text, or breaks a line
    "\ud800-\udfff]"  # bytes that were no UTF-8
)


def harmless(text: str) -> str:
    """The text with each character that could steer a terminal as an escape; tabs and line feeds stay."""
    return _HARMFUL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that it cannot decode
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """The text on one line, each run of spaces as one, without what could steer a terminal."""
    return harmless(" ".join(text.split()))


def short(text: str, width: int = 40) -> str:
    """One line of at most so many characters."""
    line = one_line(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text: at least two spaces between columns, and never two within one."""
    lines = [head, *([one_line(cell) or "-" for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def span(seconds: float) -> str:
    """A length of time in its greatest unit: ``5m``."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def ago(then: float) -> str:
    """The length of time since then, in seconds since 1970."""
    return span(time.time() - then)


def size(number: float) -> str:
    """Bytes with three digits and a unit, powers of 1024: ``1.5M``."""
    for unit in ("", "K", "M", "G", "T"):
        if number < 1000 or unit == "T":
            break
        number /= 1024
    return f"{number:.0f}{unit}" if not unit or number >= 100 else f"{number:.3g}{unit}"


def count(names: Sequence[object]) -> str:
    """How many containers: ``1 container``."""
    return f"{len(names)} container{'' if len(names) == 1 else 's'}"
