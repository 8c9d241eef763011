"""Chooses subnets and addresses: from what the host shows, what is recorded, and what this plan has claimed.

A leased address is a file in a network's directory, named by the address. An address of IPv6 stands in its subnet where
that of IPv4 does in its own. Nothing is written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import chain, count, islice

from pycore.errors import Conflict
from pycore.hookspecs import Host
from pycore.spec import Container

from pycore_network.networks import Network, Subnet, all_recorded, read_subnet
from pycore_network.ops.lease import LEASES

POOL = IPv4Network("10.208.0.0/12")
"""Where subnets come from when the spec names none: private, and not what Docker, Podman or Kubernetes take."""
PREFIX = 22
"""1,021 containers: a Linux bridge has room for 1,023 ports (BR_PORT_BITS in net/bridge/br_private.h)."""

_LARGE = 1 << 16
"""Bytes: more than is ever in a file that is read here."""
_ROOM = 1 << 20
"""Places of a subnet that are tried; more than containers fit on a host."""

# Kinds of claims. What is on disk is read into them once per plan, so that a plan of n containers costs n.
_READ, _HOLDER, _LEASE, _SUBNET = "leases read", "address", "network lease", "subnet"


# -- subnets ---------------------------------------------------------------------------------------------


def find_subnet4(host: Host, name: str) -> Subnet:
    """The first free piece of the pool, claimed. Raises Conflict where there is none."""
    used = [subnet for subnet in _used(host) if subnet.version == 4]
    for subnet in POOL.subnets(new_prefix=PREFIX):
        if not any(other.overlaps(subnet) for other in used):
            return _claim(host, subnet)
    raise Conflict(f"no subnet of {POOL} is free for the network {name!r}", hint="give it `subnets` of your own")


def find_subnet6(host: Host, name: str) -> Subnet:
    """A /64 of fd00::/8 (RFC 4193) that is told from the host and the name, so that it is the same every time."""
    used = [subnet for subnet in _used(host) if subnet.version == 6]
    for turn in count():
        digest = hashlib.sha256(f"{_machine(host)}/{host.instance}/{name}/{turn}".encode()).digest()
        subnet = IPv6Network((int.from_bytes(b"\xfd" + digest[:7], "big") << 64, 64))
        if not any(other.overlaps(subnet) for other in used):
            return _claim(host, subnet)
    raise AssertionError("unreachable")


def take_subnet(host: Host, subnet: Subnet, *, shared: bool) -> Subnet | None:
    """Claim a subnet that the spec names; what it overlaps, if it is in use.

    ``shared`` says that it is one of the host's own networks, on which its containers are beside it.
    """
    used = _used(host, routes=not shared)
    clash = next((other for other in used if other.overlaps(subnet)), None)
    _claim(host, subnet)
    return clash


def _claim(host: Host, subnet: Subnet) -> Subnet:
    host.claims.setdefault(_SUBNET, {})[str(subnet)] = ""
    return subnet


def _used(host: Host, *, routes: bool = True) -> Iterator[Subnet]:
    """Of this host's routes, of the networks that exist, and of those that this plan makes."""
    if routes:
        yield from map(read_subnet, host.look.routes())
    for network in all_recorded(host):
        yield from network.subnets
    yield from map(read_subnet, host.claims.get(_SUBNET, {}))


def _machine(host: Host) -> str:
    """What tells this host from others (machine-id(5))."""
    try:
        return host.look.read("/etc/machine-id").strip()
    except OSError:
        return ""


# -- addresses -------------------------------------------------------------------------------------------


def lease_of(host: Host, network: Network, container: Container) -> tuple[str, tuple[str, ...]] | None:
    """Device and addresses that a container has in a network, leased before or claimed in this plan."""
    _read_leases(host, network)
    found = host.claims[_LEASE].get(f"{container.id} {network.name}")
    if found is None:
        return None
    device, _, addresses = found.partition(" ")
    return device, tuple(sorted(addresses.split(), key=_is_ipv6))


def _is_ipv6(address: str) -> bool:
    return ":" in address


def claim_device(host: Host, network: Network, container: Container, device: str) -> None:
    """Write down which device of a container is in a network, before it has addresses there."""
    _read_leases(host, network)
    host.claims[_LEASE].setdefault(f"{container.id} {network.name}", device)


def find_addresses(
    host: Host, network: Network, container: Container, fixed: Sequence[str], reserved: Collection[str]
) -> tuple[str, ...]:
    """The container's addresses, one in each subnet: those that are fixed, that it has a lease of, or free ones.

    ``reserved`` are those that other containers are to have. Raises Conflict where none is left.
    """
    lease = lease_of(host, network, container)
    if lease and len(lease[1]) == len(network.subnets) and set(fixed) <= set(lease[1]):
        return lease[1]
    chosen = {subnet: _in(subnet, fixed) or _in(subnet, lease[1] if lease else ()) for subnet in network.subnets}
    missing = [subnet for subnet in network.subnets if not chosen[subnet]]
    if missing:
        taken = (reserved, host.claims[_HOLDER], network.gateways)
        chosen |= _free(network, container, missing, [each for each in chosen.values() if each], taken)
    addresses = tuple(chosen[subnet] for subnet in network.subnets)
    host.claims[_HOLDER] |= dict.fromkeys(addresses, container.full_name)
    host.claims[_LEASE][f"{container.id} {network.name}"] = " ".join((lease[0] if lease else "", *addresses))
    return addresses


def holder_of(host: Host, network: Network, address: str) -> str:
    """``APP/NAME`` of the container that has an address, or has claimed it; empty where it is free."""
    _read_leases(host, network)
    return host.claims[_HOLDER].get(address, "")


def leased(host: Host, network: Network, container: Container, fixed: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Device and addresses that a container has a lease of, looked for where they are; empty where it has none.

    Nothing is claimed, and not all leases are read: it is asked of one container after the other.
    """
    first = network.subnets[0]
    for address in chain(filter(None, [_in(first, fixed)]), _row(network, container, first)):
        device = _device(host, network, address, container)
        if device:
            found = [address]
            for subnet in network.subnets[1:]:
                likely = (_in(subnet, fixed), _beside(first, address, subnet))
                beside = chain(filter(None, likely), _row(network, container, subnet))
                found += islice((each for each in beside if _device(host, network, each, container)), 1)
            return device, tuple(found)
    return "", ()


def _device(host: Host, network: Network, address: str, container: Container) -> str:
    for identity, device, _ in _lines(host, network, address):
        if identity == container.id:
            return device
    return ""


def _in(subnet: Subnet, addresses: Sequence[str]) -> str:
    """That of some addresses which is in a subnet, or empty."""
    return next((text for text in addresses if ip_address(text) in subnet), "")


def _free(
    network: Network,
    container: Container,
    missing: Sequence[Subnet],
    others: Sequence[str],
    taken: Sequence[Collection[str]],
) -> dict[Subnet, str]:
    """Free addresses in some subnets of a network, all at one place in each: that of an address which there is."""
    if others:
        subnet = next(each for each in network.subnets if _in(each, others))
        beside = {each: _beside(subnet, _in(subnet, others), each) for each in missing}
        if all(beside.values()) and not _any_of(beside.values(), taken):
            return beside
    for offset in _offsets(network, container, missing):
        if _any_of((_at(missing[0], offset),), taken):  # looked at alone: where it is full, most are
            continue
        at = {subnet: _at(subnet, offset) for subnet in missing}
        if not _any_of(at.values(), taken):
            return at
    raise Conflict(f"no address is free in the network {network.name!r} ({', '.join(map(str, missing))})")


def _any_of(addresses: Iterable[str], taken: Sequence[Collection[str]]) -> bool:
    """Whether one of them is in any of some collections, which are too large to be put together each time."""
    return any(address in those for address in addresses for those in taken)


def _beside(subnet: Subnet, address: str, other: Subnet) -> str:
    """The address that is in another subnet where this one is in its own; empty where that has no such place."""
    offset = int(ip_address(address)) - int(subnet.network_address)
    return str(other[offset]) if 0 < offset < other.num_addresses - 1 else ""


def _row(network: Network, container: Container, subnet: Subnet) -> Iterator[str]:
    return (_at(subnet, offset) for offset in _offsets(network, container, [subnet]))


def _offsets(network: Network, container: Container, subnets: Sequence[Subnet]) -> Iterator[int]:
    """All places for containers, from one on that the container's name gives.

    So what is taken need not be walked through, and a container that is made anew gets an address near its last.
    The second place is where the host usually is, so it comes last.
    """
    room = min(_ROOM, *(subnet.num_addresses - 3 for subnet in network.subnets))
    start = int.from_bytes(hashlib.sha256(container.full_name.encode()).digest()[:4], "big")
    yield from (2 + (start + step) % room for step in range(room))
    yield 1


def _at(subnet: Subnet, offset: int) -> str:
    return str(subnet[offset])


def _read_leases(host: Host, network: Network) -> None:
    """All leases of a network, once per plan."""
    read = host.claims.setdefault(_READ, {})
    if network.name in read:
        return
    read[network.name] = ""
    holders, leases = host.claims.setdefault(_HOLDER, {}), host.claims.setdefault(_LEASE, {})
    for address in _leased(host, network):
        for identity, device, name in _lines(host, network, address):
            holders[address] = name
            key = f"{identity} {network.name}"
            leases[key] = f"{leases.get(key, device)} {address}"


def _leased(host: Host, network: Network) -> list[str]:
    """The addresses that are leased; a file that is just being written is none."""
    return [each for each in host.look.listdir(f"{network.directory}/{LEASES}") if not each.endswith(".new")]


def _lines(host: Host, network: Network, address: str) -> Iterator[tuple[str, str, str]]:
    """Id, device and ``APP/NAME`` of each container that has an address leased."""
    try:
        text = host.look.read(f"{network.directory}/{LEASES}/{address}", _LARGE)
    except FileNotFoundError:
        return
    for line in text.splitlines():
        identity, device, name = (*line.split(" ", 2), "", "")[:3]  # an earlier version wrote the id alone
        yield identity, device, name
