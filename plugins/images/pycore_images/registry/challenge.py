"""What a registry asks for before it answers: the header WWW-Authenticate (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)(?!\s*=)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LONGEST = 8192


@dataclass(frozen=True)
class Challenge:
    """One way to say who one is: ``bearer`` with the address of a token server, or ``basic``."""

    scheme: str
    """In small letters."""
    parameters: Mapping[str, str]
    """``realm``, ``service``, ``scope``; names in small letters."""


def parse(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of an answer, in its order. What is not understood is left out."""
    found: list[Challenge] = []
    for header in headers:
        found += _parse_one(header[:_LONGEST])
    return found


def _parse_one(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    place = 0
    while match := _SCHEME.match(header, place):
        parameters: dict[str, str] = {}
        place = match.end()
        while parameter := _PARAMETER.match(header, place):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            place = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
    return found
