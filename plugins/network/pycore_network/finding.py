"""Finds the network of this host that a table means: the one that exists, or one that is to be made."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.spec import App

from pycore_network.addresses import find_subnet4, find_subnet6, take_subnet
from pycore_network.networks import (
    BRIDGE,
    Network,
    NetworkTable,
    Subnet,
    bridge_of,
    directory_of,
    driver_of,
    host_name,
    options_of,
    placed,
    read_subnet,
    recorded,
    table_of,
)

_NETWORK, _CHECKED = "network", "network checked"
"""Kinds of claims."""
_IPV6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6"

PLACE = ("network", "networks")
"""Where in a container's table its networks are."""


def find_network(host: Host, app: App, word: str) -> Network:
    """The network of ``[network.WORD]``, with what it has, or is to have where it does not exist.

    Puts a problem on the host where it exists and is another than the wanted one, or cannot be made. Raises Conflict.
    """
    name, known = host_name(app, word), host.claims.setdefault(_NETWORK, {})
    if name not in known:
        known[name] = (recorded(host, name) or _made_up(host, app, word, name)).record()
    network = placed(host, name, known[name])
    checked = host.claims.setdefault(_CHECKED, {})
    if f"{app.name}/{word}" not in checked:
        checked[f"{app.name}/{word}"] = ""
        _check(host, app, word, network)
    return network


def existing(host: Host, app: App, word: str) -> Network | None:
    """The network of ``[network.WORD]`` as it is on the host; nothing is claimed."""
    return recorded(host, host_name(app, word))


def has_ipv6(host: Host) -> bool:
    """Whether this host has IPv6, and it is not turned off."""
    return host.look.exists(_IPV6) and host.look.read(_IPV6, 8).strip() == "0"


def _made_up(host: Host, app: App, word: str, name: str) -> Network:
    table, driver, options = table_of(app, word), driver_of(app, word), options_of(app, word)
    if table.external:
        hint = f"make it: pycore network create {name}"
        _object(host, f"there is no network {name!r} on this host", hint)
    subnets = tuple(_subnets(host, table, name, shared="parent" in options))
    gateways = tuple(_gateway(table, subnet) for subnet in subnets)
    return Network(
        name, driver, subnets, gateways, directory_of(host, name), bridge_of(host, name) if driver == BRIDGE else "",
        table.internal, table.mtu or 0, table.isolated, table.labels, options,
    )  # fmt: skip


def _subnets(host: Host, table: NetworkTable, name: str, *, shared: bool) -> Iterator[Subnet]:
    """IPv4, and IPv6 where it is wanted and the host has it."""
    wanted = {subnet.version: subnet for subnet in map(read_subnet, table.subnets)}
    for subnet in wanted.values():
        clash = take_subnet(host, subnet, shared=shared)
        if clash:
            _object(host, f"the subnet {subnet} of the network {name!r} is in use on this host: it overlaps {clash}")
    if 6 in wanted and not has_ipv6(host):
        _object(host, f"the network {name!r} is to have the subnet {wanted[6]}, and this host has no IPv6")
    if 4 in wanted or 6 not in wanted:
        yield wanted.get(4) or find_subnet4(host, name)
    if 6 in wanted or (table.ipv6 and not shared and has_ipv6(host)):
        yield wanted.get(6) or find_subnet6(host, name)


def _gateway(table: NetworkTable, subnet: Subnet) -> str:
    return next((text for text in table.gateways if ip_address(text) in subnet), str(subnet[1]))


def _check(host: Host, app: App, word: str, network: Network) -> None:
    """That a network is as its table says; one that was just made up is."""
    table = table_of(app, word)
    if table.external:
        return
    hint = "take down the containers that use it, or give the new one another `name`"
    for what in _differences(app, word, table, network, host):
        _object(host, f"the network {network.name!r} exists already, {what}", hint)


def _differences(app: App, word: str, table: NetworkTable, network: Network, host: Host) -> Iterator[str]:
    driver, options = driver_of(app, word), options_of(app, word)
    if driver != network.driver:
        yield f"with the driver {network.driver} instead of {driver}"
        return
    for wanted in map(read_subnet, table.subnets):
        has = next((subnet for subnet in network.subnets if subnet.version == wanted.version), None)
        if has != wanted:
            yield f"with the subnet {has} instead of {wanted}" if has else f"without the subnet {wanted}"
    for gateway in table.gateways:
        if gateway not in network.gateways:
            yield f"with the gateway {' and '.join(network.gateways)} instead of {gateway}"
    pairs = {
        "internal": (network.internal, table.internal),
        "isolated": (network.isolated, table.isolated),
        "mtu": (network.mtu, table.mtu or 0),
        **{name: (network.options.get(name), options.get(name)) for name in {*network.options, *options}},
    }
    yield from (f"with {name} {has} instead of {wanted}" for name, (has, wanted) in pairs.items() if has != wanted)
    if not table.ipv6 and any(subnet.version == 6 for subnet in network.subnets):
        yield "with IPv6"


def _object(host: Host, message: str, hint: str | None = None) -> None:
    host.complain(Problem(PLACE, message, hint))
