"""The ways that packets come to this host by: devices, and which networks are behind them, as the routes say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from pycore.linux.look import Look

Network = IPv4Network | IPv6Network
_REJECT = 0x200
"""RTF_REJECT: a route that leads nowhere (linux/route.h)."""
_OURS = re.compile(r"lo|pc-.*|pc[0-9a-f]{12}.")
"""Loopback, bridges of ours, and the host's ends of what links containers to them."""


@dataclass(frozen=True)
class Way:
    """A device that other hosts are reached by."""

    device: str
    networks: Sequence[Network]
    """Those that are at its other end."""


def ways(look: Look, version: int) -> list[Way]:
    """The devices of the default routes; of all routes where there is none. Our own bridges are no ways."""
    networks: dict[str, list[Network]] = {}
    defaults: list[str] = []
    for device, network in (_routes4 if version == 4 else _routes6)(look):
        if _OURS.fullmatch(device) or network.is_link_local:
            continue
        networks.setdefault(device, [])
        if network.prefixlen:
            networks[device].append(network)
        else:
            defaults.append(device)
    return [Way(device, networks[device]) for device in dict.fromkeys(defaults or networks)]


def _routes4(look: Look) -> Iterator[tuple[str, Network]]:
    """Of proc_net(5), route: device and destination, later the mask, in the byte order of this machine."""
    for words in _lines(look, "/proc/net/route"):
        if len(words) > 7 and not int(words[3], 16) & _REJECT:
            address, mask = (int.from_bytes(bytes.fromhex(words[place])[::-1], "big") for place in (1, 7))
            yield words[0], IPv4Network((address & mask, str(IPv4Address(mask))))


def _routes6(look: Look) -> Iterator[tuple[str, Network]]:
    """Destination, its length, and in the end flags and device (net/ipv6/route.c)."""
    for words in _lines(look, "/proc/net/ipv6_route"):
        if not int(words[8], 16) & _REJECT and not words[0].startswith("ff"):
            yield words[9], IPv6Network((int(words[0], 16), int(words[1], 16)), strict=False)


def _lines(look: Look, path: str) -> Iterator[list[str]]:
    try:
        text = look.read(path, 64 << 20)
    except OSError:
        return
    yield from (words for words in map(str.split, text.splitlines()) if len(words) >= 8 and words[0] != "Iface")
