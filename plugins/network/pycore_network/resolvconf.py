"""The text of resolv.conf(5)."""

from __future__ import annotations

from collections.abc import Iterator

HOST = "/etc/resolv.conf"

_KEYS = ("nameserver", "search", "domain", "options")


def lines(text: str) -> Iterator[tuple[str, str]]:
    """What it says: keyword and value, those that say nothing left out."""
    for line in text.splitlines():
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in _KEYS and value.strip():
            yield key, value.strip()
