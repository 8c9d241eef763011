"""What the bridge driver has left on the host that no container has, for ``pycore doctor --repair``.

Devices have no mark of the pycore that made them but their place: a port of one of our bridges. Bridges are
ours where the run dir or our own nftables table names them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from pycore.hookspecs import Host
from pycore.ops import Operation

from pycore_network.addresses import bridge_of, directory_of, subnet_of
from pycore_network.ops.bridge import Join, Link, Publish
from pycore_network.ops.lost import LostDevice, LostElement, LostTable
from pycore_network.ruleset import key_text, map_of

_UNKNOWN = IPv4Network("0.0.0.0/32")
"""The subnet of a network whose record was never written."""


@dataclass
class _Known:
    """What the containers that there are have."""

    leases: set[tuple[str, str, str]] = field(default_factory=set[tuple[str, str, str]])
    """(directory of the network, address, container)."""
    bridges: set[str] = field(default_factory=set[str])
    subnets: set[str] = field(default_factory=set[str])
    devices: set[str] = field(default_factory=set[str])
    ports: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """(map, key) of each element."""
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Name of a port's file to the container."""


def leftovers(host: Host, known: Collection[Operation]) -> Iterator[Operation]:
    """Leases, networks, ports, devices, elements, each as what takes it back."""
    have = _collect(known)
    networks = host.look.listdir(f"{host.run_dir}/networks")
    for name in networks:
        yield from _leases(host, name, have)
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
        yield from _elements(host, table, have)


def _collect(known: Collection[Operation]) -> _Known:
    have = _Known()
    for operation in known:
        if isinstance(operation, Join):
            have.leases.add((operation.directory, operation.address, operation.container))
            have.bridges.add(operation.bridge)
            have.subnets.add(operation.subnet)
        elif isinstance(operation, Link):
            have.devices.add(operation.device)
        elif isinstance(operation, Publish):
            have.ports |= {(map_of(key), key_text(key)) for key in operation.published()}
            have.files |= dict.fromkeys(operation.files(), operation.container)
    return have


def _leases(host: Host, name: str, have: _Known) -> Iterator[Join]:
    """Leases that nobody has; and a network without any, which the next one to leave would have taken down.

    What they are of counts as known from here on, for it goes with them.
    """
    directory, bridge = directory_of(host, name), bridge_of(host, name)
    subnet = subnet_of(host, name) or _UNKNOWN
    leases = {address: host.look.read(f"{directory}/leases/{address}", 256)
              for address in host.look.listdir(f"{directory}/leases")}  # fmt: skip
    for address, container in (leases or {"none": ""}).items():
        if (directory, address, container) not in have.leases:
            yield Join(name, bridge, str(subnet), str(subnet[min(1, subnet.num_addresses - 1)]), address, directory,
                       host.instance, container)  # fmt: skip
    have.bridges.add(bridge)
    have.subnets.add(str(subnet))


def _port_files(host: Host, have: _Known) -> Iterator[Publish]:
    directory = f"{host.run_dir}/ports"
    for file in host.look.listdir(directory):
        container, _, name = host.look.read(f"{directory}/{file}", 256).partition(" ")
        protocol, address, port = file.split("-")
        if have.files.get(file) != container:
            lost = Publish(protocol, address, int(port), "0.0.0.0", 0, 1, directory, host.instance, container, name)
            have.ports |= {(map_of(key), key_text(key)) for key in lost.published()}
            yield lost


def _devices(host: Host, listed: set[str], have: _Known) -> Iterator[LostDevice]:
    links = host.look.links()
    ours = have.bridges | listed
    for link in links:
        if link.startswith("pc") and link not in have.devices and host.look.link_master(link) in ours:
            yield LostDevice(link)
    yield from (LostDevice(bridge) for bridge in sorted(listed - have.bridges) if bridge in links)


def _elements(host: Host, table: str, have: _Known) -> Iterator[LostElement]:
    wanted = {
        "bridges": {f'"{bridge}"' for bridge in have.bridges},
        "within": {f'"{bridge}" . "{bridge}"' for bridge in have.bridges},
        "subnets": have.subnets,
        "ports": {key for name, key in have.ports if name == "ports"},
        "ports_at": {key for name, key in have.ports if name == "ports_at"},
    }
    for name, keys in wanted.items():
        for key in sorted(set(host.look.nft_elements(table, name)) - keys):
            yield LostElement(host.instance, name, key)
