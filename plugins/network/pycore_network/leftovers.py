"""What the bridge driver has left on the host that no container has, for ``pycore doctor --repair``.

Devices have no mark of the pycore that made them but their place: a port of one of our bridges. Bridges are
ours where the run dir or our own nftables table names them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from pycore.hookspecs import Host
from pycore.ops import Operation

from pycore_network import ruleset
from pycore_network.elements import Element, of_network
from pycore_network.known import DIRECTORY
from pycore_network.networks import BRIDGE, Network, bridge_of, directory_of, placed
from pycore_network.ops.announce import Announce
from pycore_network.ops.bridge import Join, Link
from pycore_network.ops.egress import AllowNetwork, Bind
from pycore_network.ops.guard import Guard
from pycore_network.ops.kept import ITSELF, RULES
from pycore_network.ops.lease import LEASES, RECORD, Lease
from pycore_network.ops.lost import LostDevice, LostElement, LostRules, LostTable
from pycore_network.ops.publish import Publish, holder_of, port_of
from pycore_network.ports import ALL

_LARGE = 1 << 16
"""Bytes: more than is ever in a file that is read here."""


@dataclass
class _Known:
    """What the containers that there are have."""

    leases: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    """(directory of the network, address, container)."""
    announced: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """(directory of the network, container)."""
    bridges: set[str] = field(default_factory=set[str])
    guarded: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """(directory of the network, the host's end of the device)."""
    devices: set[str] = field(default_factory=set[str])
    elements: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    """(family, set or map, key)."""
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Name of a port's file to the container."""


def leftovers(host: Host, known: Collection[Operation]) -> Iterator[Operation]:
    """Leases, networks, ports, devices, elements, each as what takes it back."""
    have = _collect(known)
    networks = host.look.listdir(f"{host.run_dir}/networks")
    for name in networks:
        yield from _of_network(host, name, have)
    yield from _port_files(host, have)
    table = f"inet {host.instance}"
    try:
        there = host.look.nft_has(table)
    except OSError:  # without the library, or the power, nothing was put in
        there = False
    listed = {key.strip('"') for key in host.look.nft_elements(table, "bridges")} if there else set[str]()
    yield from _devices(host, listed, have)
    if there and not networks and not have.bridges:
        yield LostTable(host.instance)
    elif there:
        yield from _elements(host, have)


def _collect(known: Collection[Operation]) -> _Known:
    have = _Known()
    for operation in known:
        if isinstance(operation, (Join, Guard, Publish, Bind, AllowNetwork)):
            have.elements |= {(each.family, each.place, each.key) for each in operation.elements()}
        if isinstance(operation, Lease):
            have.leases |= {(operation.directory, address, operation.container) for address in operation.addresses}
        if isinstance(operation, Join):
            have.bridges.add(operation.bridge)
        elif isinstance(operation, Link):
            have.devices.add(operation.peer)
        elif isinstance(operation, Announce):
            have.announced.add((operation.directory, operation.container))
        elif isinstance(operation, Guard):
            have.guarded.add((operation.directory, operation.device))
        elif isinstance(operation, Publish):
            have.files |= dict.fromkeys(operation.files(), operation.container)
    return have


def _of_network(host: Host, name: str, have: _Known) -> Iterator[Operation]:
    """What nobody has of a network: leases, and what was announced; and a network without any lease, which the next
    one to leave would have taken down.

    What they are of counts as known from here on, for it goes with them.
    """
    network = _network(host, name)
    leases = list(_leases(host, network))
    for address, container, device, who in leases or [("none", "", "", "")]:
        if (network.directory, address, container) not in have.leases:
            yield _lost_lease(host, network, address, container, device, who)
    for container in host.look.listdir(f"{network.directory}/{DIRECTORY}"):
        if (network.directory, container) not in have.announced and not container.endswith(".new"):
            yield Announce(name, network.directory, container, "", (), (), ())
    if network.bridge:
        have.bridges.add(network.bridge)
        have.elements |= {(each.family, each.place, each.key) for each in _own(network)}
    for device in host.look.listdir(f"{network.directory}/{RULES}"):
        if device != ITSELF and (network.directory, device) not in have.guarded and not device.endswith(".new"):
            yield LostRules(network.directory, device)


def _own(network: Network) -> list[Element]:
    return of_network(
        network.name, network.bridge, map(str, network.subnets), internal=network.internal, isolated=network.isolated
    )


def _network(host: Host, name: str) -> Network:
    """As its record says; one whose record was never written is one of ours, without any subnet."""
    directory = directory_of(host, name)
    try:
        return placed(host, name, host.look.read(f"{directory}/{RECORD}", _LARGE))
    except (FileNotFoundError, ValueError):
        return Network(name, BRIDGE, (), (), directory, bridge_of(host, name))


def _leases(host: Host, network: Network) -> Iterator[tuple[str, str, str, str]]:
    """(address, container, device, ``APP/NAME``) of all that are leased."""
    directory = f"{network.directory}/{LEASES}"
    for address in host.look.listdir(directory):
        if not address.endswith(".new"):
            for line in host.look.read(f"{directory}/{address}", _LARGE).splitlines():
                container, device, who = (*line.split(" ", 2), "", "")[:3]
                yield address, container, device, who


def _lost_lease(host: Host, network: Network, address: str, container: str, device: str, who: str) -> Lease:
    fields = (network.name, network.record(), network.directory, container, who, device, (address,))
    return Join(*fields, network.bridge, host.instance) if network.bridge else Lease(*fields)


def _port_files(host: Host, have: _Known) -> Iterator[Publish]:
    directory = f"{host.run_dir}/ports"
    for file in host.look.listdir(directory):
        container, name = holder_of(host.look.read(f"{directory}/{file}", _LARGE))
        if have.files.get(file) != container and not file.endswith(".new"):
            protocol, address, port = port_of(file)
            yield Publish(
                protocol, address, port, 0, 1, ALL, (), (), directory, host.instance, container, name
            )  # fmt: skip


def _devices(host: Host, listed: set[str], have: _Known) -> Iterator[LostDevice]:
    links = host.look.links()
    ours = have.bridges | listed
    for link in links:
        if link.startswith("pc") and link not in have.devices and host.look.link_master(link) in ours:
            yield LostDevice(link)
    yield from (LostDevice(bridge) for bridge in sorted(listed - have.bridges) if bridge in links)


def _elements(host: Host, have: _Known) -> Iterator[LostElement]:
    """What is in the tables that no operation has put in; what is counted and made there by rules comes and goes."""
    for family, places in ruleset.PLACES.items():
        for place in places:
            wanted = {key for where, name, key in have.elements if (where, name) == (family, place)}
            for key in sorted(set(host.look.nft_elements(f"{family} {host.instance}", place)) - wanted):
                yield LostElement(host.instance, family, place, key)
