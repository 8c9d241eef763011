"""Addresses and ports that are allowed, as boxes that do not meet: sets take no others (nft_set_pipapo.c in Linux)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from pycore_network.egress.entries import ALL_PORTS, Entry
from pycore_network.elements import collapsed

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, order=True)
class Box:
    """A network, and ports of all in it."""

    network: str
    protocol: str
    """Empty for all there are, with all their ports."""
    first: int
    last: int


def boxes(entries: Iterable[Entry]) -> list[Box]:
    """What entries allow by addresses, all of it once."""
    rows = [entry for entry in entries if entry.networks]
    return [box for version in (4, 6) for box in _of_family(rows, version)]


def _of_family(rows: Sequence[Entry], version: int) -> Iterator[Box]:
    free = collapsed([network for row in rows if not row.protocol for network in _networks(row, version)])
    yield from (Box(str(network), "", *ALL_PORTS) for network in free)
    for protocol in sorted({row.protocol for row in rows if row.protocol}):
        those = [row for row in rows if row.protocol == protocol]
        yield from _of_protocol(protocol, those, version, free)


def _of_protocol(protocol: str, rows: Sequence[Entry], version: int, free: Sequence[Network]) -> Iterator[Box]:
    """Cut where the ports of any of them begin or end; pieces that allow the same are put together again."""
    cuts = sorted({cut for row in rows for cut in (row.ports[0], row.ports[1] + 1)})
    begun: dict[Network, int] = {}
    for cut in cuts:
        those = [row for row in rows if row.ports[0] <= cut <= row.ports[1]]
        found = collapsed([network for row in those for network in _networks(row, version)])
        now = {network for network in found if not any(_is_within(network, other) for other in free)}
        for network in sorted(begun.keys() - now, key=str):
            yield Box(str(network), protocol, begun.pop(network), cut - 1)
        for network in now - begun.keys():
            begun[network] = cut


def _networks(row: Entry, version: int) -> list[Network]:
    return [network for text in row.networks if (network := ip_network(text)).version == version]


def _is_within(one: Network, other: Network) -> bool:
    return one.prefixlen >= other.prefixlen and one.overlaps(other)
