"""Published ports as the spec writes them: ``"127.0.0.1:8080:80/tcp"``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address

from pycore_network.ruleset import ANYWHERE

MAX_RANGE = 1024
"""Ports in one entry."""

Place = tuple[str | int, ...]
"""Where in the spec an entry stands: its keys and indexes from the top."""

_FORM = 'must look like "8080:80", "127.0.0.1:8080:80", "8080:80/udp" or "8000-8010:8000-8010"'


@dataclass(frozen=True)
class Ports:
    """A row of ``count`` ports of the host, and the container's ports that they lead to."""

    protocol: str
    host_ip: str
    host_port: int
    port: int
    count: int = 1

    def __str__(self) -> str:
        """As it is shown: ``127.0.0.1:8080->80/tcp``."""
        return f"{self.host_ip}:{_row(self.host_port, self.count)}->{_row(self.port, self.count)}/{self.protocol}"

    def __iter__(self) -> Iterator[int]:
        """The host's ports, one by one."""
        return iter(range(self.host_port, self.host_port + self.count))


def parse(text: str) -> Ports:
    """Read ``[HOST_IP:]HOST_PORT[-LAST]:PORT[-LAST][/PROTOCOL]``. Raises ValueError with words for its author."""
    body, slash, protocol = text.partition("/")
    if slash and protocol not in ("tcp", "udp"):
        raise ValueError(f'the protocol must be "tcp" or "udp", not {protocol!r}')
    if "[" in body or body.count(":") > 2:
        raise ValueError("IPv6 addresses cannot be published on yet")
    words = body.split(":")
    if len(words) == 1:
        raise ValueError(f'{_FORM}; for the same port on the host write "{body}:{body}"')
    host, inside = _numbers(words[-2]), _numbers(words[-1])
    if len(host) != len(inside):
        raise ValueError(f"{len(host)} ports of the host cannot lead to {len(inside)} of the container")
    return Ports(protocol or "tcp", _address(words[0]) if len(words) == 3 else ANYWHERE, host[0], inside[0], len(host))


def overlap(one: str, other: str) -> bool:
    """Whether a port on one address of the host is also a port on the other."""
    return one == other or ANYWHERE in (one, other)


def twice(entries: Iterable[tuple[Place, Ports]]) -> Iterator[tuple[Place, int, Place]]:
    """Entries that ask for a port that one before them has: (its place, the port, the place before)."""
    taken: dict[tuple[str, int], list[tuple[str, Place]]] = {}
    for place, ports in entries:
        for port in ports:
            others = taken.setdefault((ports.protocol, port), [])
            before = next((where for address, where in others if overlap(address, ports.host_ip)), None)
            if before is not None:
                yield place, port, before
                break
            others.append((ports.host_ip, place))


def _numbers(text: str) -> range:
    first, dash, last = text.partition("-")
    start = _number(first)
    end = _number(last) if dash else start
    if end < start:
        raise ValueError(f"the range {text} ends before it begins")
    if end - start >= MAX_RANGE:
        raise ValueError(f"the range {text} has more than {MAX_RANGE} ports")
    return range(start, end + 1)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(_FORM)
    number = int(text[:6])
    if not 1 <= number <= 65535:
        raise ValueError(f"{text[:20]} is no port: ports go from 1 to 65535")
    return number


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise ValueError(f"{text!r} is no IPv4 address of the host") from None


def _row(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
