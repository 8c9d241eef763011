"""Chooses subnets and addresses: from what the host shows, what is recorded, and what this plan has claimed.

A network that exists is ``network.json`` in a directory of the run dir; a leased address is a file beside it,
named by the address, with the container's id inside. Nothing is written here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pycore.errors import Conflict, Problem
from pycore.hookspecs import Host
from pycore.spec import Container

from pycore_network.ops.bridge import RECORD

POOL = IPv4Network("10.208.0.0/12")
"""Where subnets come from when the spec names none: private, and not what Docker, Podman or Kubernetes take."""
PREFIX = 22
"""1,021 containers: a Linux bridge has room for 1,023 ports (BR_PORT_BITS in net/bridge/br_private.h)."""

_SMALL = 256
"""Bytes: more than is ever in a file that is read here."""

# Kinds of claims. What is on disk is read into them once per plan, so that a plan of n containers costs n.
_NETWORK, _ADDRESS, _LEASE = "network", "address", "network lease"


@dataclass(frozen=True)
class Network:
    """A network of this host, which containers of one or several apps share."""

    name: str
    bridge: str
    subnet: IPv4Network
    directory: str

    @property
    def gateway(self) -> str:
        """The host's own address in it: the first."""
        return str(self.subnet[1])


def directory_of(host: Host, name: str) -> str:
    """What is kept of a network."""
    return f"{host.run_dir}/networks/{name}"


def bridge_of(host: Host, name: str) -> str:
    """The bridge's name, at most 15 characters (IFNAMSIZ): readable at its start, unique by its end."""
    return f"pc-{name[:5]}-{hashlib.sha256(f'{host.instance}/{name}'.encode()).hexdigest()[:6]}"


def find_network(host: Host, name: str, wanted: IPv4Network | None) -> Network:
    """The network of that name, with the subnet it has, or that is wanted, or the first free one of the pool.

    Puts a problem on the host where it has another than the wanted one, or where that is in use.
    """
    known = host.claims.setdefault(_NETWORK, {})
    if name not in known:
        recorded = subnet_of(host, name)
        _read_leases(host, name)
        known[name] = str(recorded or _free_subnet(host, name, wanted))
    subnet = IPv4Network(known[name])
    if wanted is not None and wanted != subnet:
        _object(
            host,
            f"the network {name!r} exists already, with the subnet {subnet} instead of {wanted}",
            "take down the containers that use it, or give the new one another `name`",
        )
        subnet = wanted
    return Network(name, bridge_of(host, name), subnet, directory_of(host, name))


def find_address(host: Host, network: Network, container: Container) -> str:
    """The container's address: the one it has a lease of, or a free one. Raises Conflict where none is left."""
    lease = lease_of(host, container)
    if lease and IPv4Address(lease) in network.subnet:
        return lease
    taken = host.claims.setdefault(_ADDRESS, {})
    for address in _row(network, container):
        if address not in taken:
            taken[address] = container.id
            host.claims.setdefault(_LEASE, {})[container.id] = address
            return address
    raise Conflict(f"no address is free in the network {network.name!r} ({network.subnet})")


def lease_of(host: Host, container: Container) -> str:
    """The address that a container has claimed in this plan or leased before; an empty string where it has none."""
    return host.claims.get(_LEASE, {}).get(container.id, "")


def leased(host: Host, name: str, container: Container) -> tuple[Network, str] | None:
    """The network of that name and the container's address in it, as they are on the host; nothing is claimed."""
    subnet = subnet_of(host, name)
    if subnet is None:
        return None
    network = Network(name, bridge_of(host, name), subnet, directory_of(host, name))
    for address in _row(network, container):
        with suppress(FileNotFoundError):
            if host.look.read(f"{network.directory}/leases/{address}", _SMALL) == container.id:
                return network, address
    return None


def _row(network: Network, container: Container) -> Iterator[str]:
    """All addresses for containers, from a place on that the container's name gives.

    So what is taken need not be walked through, and a container that is made anew gets an address near its last.
    """
    room = network.subnet.num_addresses - 3  # but the first, the gateway and the last
    start = int.from_bytes(hashlib.sha256(container.full_name.encode()).digest()[:4], "big")
    base = int(network.subnet.network_address) + 2
    return (str(IPv4Address(base + (start + step) % room)) for step in range(room))


def subnet_of(host: Host, name: str) -> IPv4Network | None:
    """The subnet of a network that exists."""
    try:
        record: dict[str, Any] = json.loads(host.look.read(f"{directory_of(host, name)}/{RECORD}", _SMALL))
    except FileNotFoundError:
        return None
    return IPv4Network(record["subnet"])


def _read_leases(host: Host, name: str) -> None:
    addresses, leases = host.claims.setdefault(_ADDRESS, {}), host.claims.setdefault(_LEASE, {})
    directory = f"{directory_of(host, name)}/leases"
    for address in host.look.listdir(directory):
        addresses[address] = identity = host.look.read(f"{directory}/{address}", _SMALL)
        leases[identity] = address


def _free_subnet(host: Host, name: str, wanted: IPv4Network | None) -> IPv4Network:
    used = list(_used_subnets(host))
    if wanted is not None:
        clash = next((other for other in used if other.overlaps(wanted)), None)
        if clash:
            _object(host, f"the subnet {wanted} of the network {name!r} is in use on this host: it overlaps {clash}")
        return wanted
    for subnet in POOL.subnets(new_prefix=PREFIX):
        if not any(other.overlaps(subnet) for other in used):
            return subnet
    raise Conflict(f"no subnet of {POOL} is free for the network {name!r}", hint="give it a `subnet` of your own")


def _object(host: Host, message: str, hint: str | None = None) -> None:
    problem = Problem(("network", "network"), message, hint)
    if problem not in host.problems:  # each phase of a container finds the network anew
        host.problems.append(problem)


def _used_subnets(host: Host) -> Iterator[IPv4Network]:
    """Of this host's routes, of the networks that exist, and of those that this plan makes."""
    for address, mask in host.look.routes():
        yield IPv4Network((address, str(IPv4Address(mask))))
    for name in host.look.listdir(f"{host.run_dir}/networks"):
        recorded = subnet_of(host, name)
        if recorded:
            yield recorded
    yield from map(IPv4Network, host.claims.get(_NETWORK, {}).values())
