"""A packet as rules of a firewall see it: the first of a connection, at one place on its way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


class Somewhere(Enum):
    """Addresses that are not one in particular."""

    ELSEWHERE = "another host"
    """An address of which no rule says anything in particular: it is in no set but one that holds at least half of all
    addresses there are."""


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection."""

    version: int
    """4 or 6."""
    protocol: str
    """``tcp``, ``udp``, ``sctp``."""
    source: Address | Somewhere
    destination: Address | Somewhere
    port: int
    """Where it goes to; it comes from one of those that are given out for a while."""
    incoming: str
    """The device that it has come in by; a place of no device is empty."""
    outgoing: str = ""
    """The device that it goes out by."""
    translated: bool = False
    """Whether its destination was another at first: a published port's."""
    mark: int | None = 0
    """What a rule has marked it with; None where nobody knows."""

    @property
    def local(self) -> bool:
        """Whether it is for the host itself."""
        return not self.outgoing
