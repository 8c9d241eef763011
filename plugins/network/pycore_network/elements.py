"""What the nftables tables are filled with: elements of their sets and maps, which say all that is particular to a
network, a container or a port. :mod:`pycore_network.ruleset` has the rules that look into them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING

from pycore.linux.nftelements import Element as Element

from pycore_network.ports import ALL, LAN, Ports, version_of

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

INET, BRIDGE = "inet", "bridge"
"""Families of our two tables: what is routed, and frames that pass a bridge."""

_LAN = {
    4: ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    6: ("fc00::/7", "fe80::/10"),
}
"""Private (RFC 1918, RFC 4193), shared by a provider's customers (RFC 6598), and of one link (RFC 3927, RFC 4291)."""


def of_network(name: str, bridge: str, subnets: Iterable[str], *, internal: bool, isolated: bool) -> list[Element]:
    """What makes a network one: its bridge, beside itself for what stays within, and its subnets."""
    who, device = f"network {name}", f'"{bridge}"'
    found = [
        Element(INET, "bridges", device, who=who),
        Element(INET, "within", f"{device} . {device}", who=who),
    ]
    for subnet in subnets:
        six = "6" if ":" in subnet else ""
        found.append(Element(INET, f"subnets{six}", subnet, who=who))
        found.append(Element(INET, f"neighbours{six}", f"{subnet} . {subnet}", who=who))
    if internal:
        found.append(Element(INET, "internal", device, who=who))
    elif not isolated:
        found.append(Element(INET, "open", device, who=who))
    return found


def of_device(device: str, mac: str, addresses: Iterable[str], who: str) -> list[Element]:
    """What may come from a container's device, given by the host's end: its own addresses, of each kind."""
    name = f'"{device}"'
    found = [
        Element(BRIDGE, "ends", name, who=who),
        Element(BRIDGE, "macs", f"{name} . {mac}", who=who),
    ]
    sixes = [link_local(mac)]
    for address in addresses:
        if ":" in address:
            sixes.append(address)
        else:
            found.append(Element(BRIDGE, "addresses", f"{name} . {address}", who=who))
    for address in sixes:
        found.append(Element(BRIDGE, "addresses6", f"{name} . {address}", who=who))
        found.append(
            Element(BRIDGE, "targets", f"{name} . {int.from_bytes(inet_pton(AF_INET6, address), 'big'):#x}", who=who)
        )
    return found


def link_local(mac: str) -> str:
    """The IPv6 address that a device gives itself, of its hardware address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return inet_ntop(AF_INET6, b"\xfe\x80" + bytes(6) + interface)


def of_ports(ports: Ports, addresses: Iterable[str], who: str) -> Iterator[Element]:
    """What leads ports to a container, which has these addresses. A family that only one side knows is left out."""
    for address in addresses:
        version = version_of(address)
        if version in ports.versions:
            for step in range(ports.count):
                yield from _of_port(ports, step, address, version, who)


def _of_port(ports: Ports, step: int, address: str, version: int, who: str) -> Iterator[Element]:
    place = ("ports6" if version == 6 else "ports") + ("_at" if ports.one_address else "")
    key = f"{ports.protocol} . {ports.host_port + step}"
    if ports.one_address:
        key = f"{ports.one_address} . {key}"
    value = f"{address} . {ports.port + step}"
    sources = () if ports.only_here else sources_of(ports.expose, ports.allow_from, version)
    if sources is None:
        yield Element(INET, place, key, value, who)
        return
    yield Element(INET, f"{place}_here", key, value, who)
    for source in sources:
        yield Element(INET, f"{place}_from", f"{key} . {source}", value, who)


def sources_of(expose: str, allow_from: Sequence[str], version: int) -> tuple[str, ...] | None:
    """The networks of a family that may reach a port, none of them within another; None for everybody."""
    if not allow_from:
        return None if expose == ALL else _LAN[version] if expose == LAN else ()
    from ipaddress import ip_network

    allowed = [network for network in map(ip_network, allow_from) if network.version == version]
    if expose != ALL:
        within = [ip_network(text) for text in (_LAN[version] if expose == LAN else ())]
        allowed = [part for each in allowed for other in within if (part := _common(each, other))]
    return tuple(str(each.network_address if each.num_addresses == 1 else each) for each in collapsed(allowed))


def collapsed(networks: Sequence[IPv4Network | IPv6Network]) -> list[IPv4Network | IPv6Network]:
    """The same addresses by as few networks as it takes, none of them within another."""
    from ipaddress import IPv4Network, IPv6Network, collapse_addresses

    fours = collapse_addresses([each for each in networks if isinstance(each, IPv4Network)])
    sixes = collapse_addresses([each for each in networks if isinstance(each, IPv6Network)])
    return [*fours, *sixes]


def _common(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network | None:
    """What is in both: the smaller, where one is within the other."""
    if not one.overlaps(other):
        return None
    return max(one, other, key=lambda network: network.prefixlen)
