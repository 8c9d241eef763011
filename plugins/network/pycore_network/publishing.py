"""What is done for the ports that a container publishes, and what stands in the way of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.ops import Operation
from pycore.spec import Container

from pycore_network.holders import port_problem
from pycore_network.ops.publish import Publish
from pycore_network.ops.serve import DIRECTORY, Serve
from pycore_network.ports import Place, Ports, twice, version_of

if TYPE_CHECKING:
    from pycore_network.memberships import Membership

PLACE = ("network", "ports")
"""Where in a container's table its ports are."""


def publish(
    container: Container, host: Host, published: Sequence[Ports], everywhere: Iterable[Membership]
) -> Iterator[Operation]:
    """The operations of its ports, for a container that is in these networks; problems are put on the host."""
    networks = list(everywhere)
    for index, ports in enumerate(published):
        addresses = _addresses(networks, ports)
        message, hint = port_problem(host, container, ports), "take another port of the host, or end what holds it"
        if not addresses:
            message, hint = _unreachable(networks, ports)
        if message:
            host.problems.append(Problem((*PLACE, index), message, hint))
        if addresses:
            yield (_serve if ports.proxy else _publish)(container, host, ports, addresses)


def shared(entries: Iterable[tuple[Place, Ports]]) -> Iterator[Problem]:
    """Ports that an app publishes twice; with each the place where it stands."""
    for place, port, before in twice(entries):
        yield Problem(place, f"port {port} of the host is published twice: also by container {before[1]!r}")


def _addresses(networks: Iterable[Membership], ports: Ports) -> tuple[str, ...]:
    """Where they lead: its addresses in the first network of each family. What others may reach is in none that is
    internal.
    """
    found: dict[int, str] = {}
    for each in networks:
        if each.network.bridge and (ports.only_here or not each.network.internal):
            for address in each.addresses:
                found.setdefault(version_of(address), address)
    return tuple(found[version] for version in ports.versions if version in found)


def _unreachable(networks: Iterable[Membership], ports: Ports) -> tuple[str, str]:
    """Why they cannot lead anywhere, and what to do."""
    if any(each.network.bridge and not each.network.internal for each in networks):
        family = f"IPv{ports.versions[0]}"
        return f"{ports.host_ip} is {family}, of which the container has no address", "publish it on another address"
    return (
        "it is in no network that ports could lead into",
        'give it a network of the driver bridge that is not internal, or take expose = "host"',
    )


def _publish(container: Container, host: Host, ports: Ports, addresses: tuple[str, ...]) -> Publish:
    return Publish(
        ports.protocol, ports.host_ip, ports.host_port, ports.port, ports.count, ports.expose, ports.allow_from,
        addresses, f"{host.run_dir}/ports", host.instance, container.id, container.full_name,
    )  # fmt: skip


def _serve(container: Container, host: Host, ports: Ports, addresses: tuple[str, ...]) -> Serve:
    return Serve(
        ports.protocol, ports.host_ip, ports.host_port, addresses[0], ports.port, ports.count, ports.expose,
        ports.allow_from, f"{host.run_dir}/{DIRECTORY}", container.id, container.full_name,
    )  # fmt: skip
