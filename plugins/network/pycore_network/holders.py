"""Who holds a port of the host: another container, or a process of the host."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

from pycore.hookspecs import Host
from pycore.spec import Container

from pycore_network.ops import serve
from pycore_network.ops.publish import holder_of, port_of
from pycore_network.ports import ANYWHERE, Ports, overlap

_READ, _SERVED = "ports read", "served port "
_SMALL = 256
"""Bytes: more than the first line of a port's file has."""


def port_problem(host: Host, container: Container, wanted: Ports) -> str:
    """What stands in the way of publishing, in words that name the holder; an empty string if nothing does.

    A container of the same app is never in the way: the spec was checked for ports that are there twice, so one
    that holds it is an earlier form of the app, which goes first.
    """
    for port in wanted:
        name = _container(host, container, wanted, port)
        if name:
            return f"port {port}/{wanted.protocol} of the host leads to container {name} already"
        if not _is_ours(host, wanted, port) and _process(host, wanted, port):
            owner = host.look.listener_owner(wanted.protocol, port) or "a process of this host"
            return f"port {port}/{wanted.protocol} of the host is in use by {owner}"
    return ""


def _container(host: Host, container: Container, wanted: Ports, port: int) -> str:
    _read_holders(host)
    for address, name in host.claims.get(f"port {wanted.protocol}/{port}", {}).items():
        if overlap(address, wanted.host_ip) and name.partition("/")[0] != container.app.name:
            return name
    return ""


def _read_holders(host: Host) -> None:
    """All published ports, once per plan."""
    if _READ in host.claims:
        return
    host.claims[_READ] = {}
    directory = f"{host.run_dir}/ports"
    for file in host.look.listdir(directory):
        if not file.endswith(".new"):
            protocol, address, port = port_of(file)
            _, name = holder_of(host.look.read(f"{directory}/{file}", _SMALL))
            host.claims.setdefault(f"port {protocol}/{port}", {})[address] = name
    for each in serve.all_in(host.look, f"{host.run_dir}/{serve.DIRECTORY}"):
        for port in range(each.host_port, each.host_port + each.count):
            for kind in ("port ", _SERVED):
                host.claims.setdefault(f"{kind}{each.protocol}/{port}", {})[each.host_ip] = each.name


def _is_ours(host: Host, wanted: Ports, port: int) -> bool:
    """Whether the proxy serves it, for what this container was or one of its app."""
    return any(
        overlap(address, wanted.host_ip) for address in host.claims.get(f"{_SERVED}{wanted.protocol}/{port}", {})
    )


def _process(host: Host, wanted: Ports, port: int) -> bool:
    kind = f"listeners {wanted.protocol}"
    if kind not in host.claims:
        found = host.claims[kind] = {}
        for address, held in host.look.listeners(wanted.protocol):
            found[str(held)] = f"{found.get(str(held), '')} {address}"
    sockets = host.claims[kind].get(str(port), "").split()
    return any(overlap(address, wanted.host_ip) for text in sockets for address in _addresses(text))


def _addresses(text: str) -> Iterator[str]:
    """The addresses that a socket listens on (proc_net_tcp(5): words of 4 bytes); on all of IPv6, on all of both."""
    octets = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    address = ip_address(octets)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    yield str(address)
    if str(address) == ANYWHERE[6]:
        yield ANYWHERE[4]
