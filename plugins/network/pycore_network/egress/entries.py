"""What containers may send to, as the spec writes it: ``"example.org:443"``, ``"10.0.0.0/8:*"``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated

import pydantic
from pycore.spec import Text

from pycore_network.ports import PROTOCOLS, number_of

ALL_PORTS = (0, 65535)
MAX_NAMED = 64
"""Ports in a range of an entry that names a host: each address that it turns out to have is noted down for each."""
_FORM = (
    'must look like "example.org:443", "*.example.org:443", "example.org:53/udp", "10.0.0.0/8:*" or '
    '"[2001:db8::/32]:8000-8010"'
)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_EVERYWHERE = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True)
class Entry:
    """Hosts, and ports of theirs."""

    name: str
    """In small letters; ``*.example.org`` is all names below that one. Empty where addresses are meant."""
    networks: tuple[str, ...]
    """What is meant by addresses; empty for a name."""
    protocol: str
    """Empty for all there are."""
    ports: tuple[int, int]
    """The first and the last."""


def is_called(pattern: str, name: str) -> bool:
    """Whether the name of an entry means a host's, which is in small letters."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) >= len(pattern)
    return bool(pattern) and name == pattern


def parse(text: str) -> Entry:
    """Read ``HOST:PORT[-LAST][/PROTOCOL]`` or ``HOST:*``. Raises ValueError with words for its author."""
    host, ports = _split(text)
    name, networks = _host(host)
    protocol, row = _ports(ports)
    if name and row[1] - row[0] >= MAX_NAMED and (protocol or row != ALL_PORTS):
        raise ValueError(f"a host that is named has at most {MAX_NAMED} ports in an entry, or all of them as `*`")
    return Entry(name, networks, protocol, row)


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, closed, ports = text[1:].partition("]:")
        if not closed or ":" not in host:
            raise ValueError(_FORM)
        return host, ports
    host, colon, ports = text.rpartition(":")
    if ":" in host:
        raise ValueError(f"{_FORM}; an IPv6 address stands in brackets")
    if not colon:
        raise ValueError(f'{_FORM}; for all ports write "{text}:*"')
    return host, ports


def _host(text: str) -> tuple[str, tuple[str, ...]]:
    if text == "*":
        return "", _EVERYWHERE
    name = text.lower().removesuffix(".")
    if _NAME.fullmatch(name) and len(name) <= 253 and not name.replace(".", "").isdigit():
        return name, ()
    try:
        return "", (str(ip_network(text)),)
    except ValueError:
        pass
    if "/" in text or ":" in text:
        raise ValueError(f"{text!r} is no network such as 10.0.0.0/8 or 2001:db8::/32, with no host bits set")
    hint = "" if text.isascii() else "; names with other letters are written as DNS has them (xn--...)"
    raise ValueError(f"{text!r} is neither a name nor an address{hint}")


def _ports(text: str) -> tuple[str, tuple[int, int]]:
    words, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise ValueError(f'the protocol must be "tcp", "udp" or "sctp", not {protocol!r}')
    if words == "*":
        return protocol, ALL_PORTS
    first, dash, last = words.partition("-")
    row = (_number(first), _number(last if dash else first))
    if row[1] < row[0]:
        raise ValueError(f"the range {words} ends before it begins")
    return protocol or "tcp", row


def _number(text: str) -> int:
    number = number_of(text)
    if number is None:
        raise ValueError(_FORM)
    return number


def _text(text: str) -> str:
    parse(text)
    return text


EntryText = Annotated[Text, pydantic.AfterValidator(_text)]
"""One entry of ``egress``."""
