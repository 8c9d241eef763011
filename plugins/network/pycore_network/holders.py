"""Who holds a port of the host: another container, or a process of the host."""

from __future__ import annotations

from collections.abc import Iterator

from pycore.hookspecs import Host
from pycore.spec import Container

from pycore_network.ports import Ports, overlap
from pycore_network.ruleset import ANYWHERE

_READ = "ports read"


def port_problem(host: Host, container: Container, wanted: Ports) -> str:
    """What stands in the way of publishing, in words that name the holder; an empty string if nothing does.

    A container of the same app is never in the way: the spec was checked for ports that are there twice, so one
    that holds it is an earlier form of the app, which goes first.
    """
    for port in wanted:
        name = _container(host, container, wanted, port)
        if name:
            return f"port {port}/{wanted.protocol} of the host leads to container {name} already"
        if _process(host, wanted, port):
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
    """All published ports, once per plan: their files are named ``PROTOCOL-ADDRESS-PORT``."""
    if _READ in host.claims:
        return
    host.claims[_READ] = {}
    for entry in host.look.listdir(f"{host.run_dir}/ports"):
        protocol, address, port = entry.split("-")
        _, _, name = host.look.read(f"{host.run_dir}/ports/{entry}", 256).partition(" ")
        host.claims.setdefault(f"port {protocol}/{port}", {})[address] = name


def _process(host: Host, wanted: Ports, port: int) -> bool:
    kind = f"listeners {wanted.protocol}"
    if kind not in host.claims:
        found = host.claims[kind] = {}
        for address, held in host.look.listeners(wanted.protocol):
            found[str(held)] = f"{found.get(str(held), '')} {address}"
    return any(overlap(address, wanted.host_ip) for address in _ipv4(host.claims[kind].get(str(port), "").split()))


def _ipv4(addresses: list[str]) -> Iterator[str]:
    """The IPv4 addresses that sockets listen on; not those on IPv6 alone (proc_net_tcp(5): words of 4 bytes)."""
    for address in addresses:
        if not int(address, 16):
            yield ANYWHERE
        elif len(address) == 8 or address.startswith("0000000000000000FFFF0000"):
            yield ".".join(str(byte) for byte in bytes.fromhex(address[-8:])[::-1])
