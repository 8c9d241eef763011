"""The driver ``bridge``: networks of the host's own, addresses in them, a way out, and published ports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, Requirement, Service, hookimpl
from pycore.launch.namespaces import Namespaces
from pycore.linux.kernel import Kernel
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import App, Change, Container, Many, Section, setting

from pycore_network import requirements
from pycore_network.hostfirewall.warnings import warn
from pycore_network.leftovers import leftovers
from pycore_network.memberships import Membership, Networks, known_memberships, memberships
from pycore_network.networks import BRIDGE
from pycore_network.ops import bridge as ops
from pycore_network.ops.announce import Announce
from pycore_network.ops.guard import Guard
from pycore_network.ops.route import DefaultRoute
from pycore_network.portentries import Entry, read
from pycore_network.ports import Place, Ports
from pycore_network.publishing import PLACE, publish, shared
from pycore_network.watch import Watch

DRIVER = Driver(
    "network",
    "bridge",
    "Networks of the host's own, with a way out and published ports.",
    default=True,
    of=("container", "network"),
)


class Bridge(Section):
    """Which of a container's ports the host publishes."""

    table: ClassVar[str] = "container.*.network"

    ports: Many[Entry] = setting(
        (),
        doc="Ports of the host that lead to the container: [HOST_IP:]HOST_PORT:PORT[/udp], or two ranges of one "
        "length, which everybody may reach; or a table that says more. They work from other hosts, from this one and "
        "from containers.",
        change=Change.LIVE,
        example=["8080:80", "127.0.0.1:5353:53/udp"],
        flags=("-p", "--publish"),
    )


@hookimpl
def pycore_driver() -> Driver:
    return DRIVER


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Networks, Bridge]


@hookimpl
def pycore_requirements(look: Look) -> Iterable[Requirement]:
    if look.in_user_namespace() and not look.owns_network():
        return  # a normal user's driver is another one
    yield requirements.net_admin(look)
    yield requirements.libnftables()
    yield requirements.forwarding(look)
    yield from requirements.modules(look)


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    return shared(_entries(app))


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    requirements.object_without_power(host)
    return [
        operation
        for membership in memberships(container, host, BRIDGE)
        for operation in (_join(container, host, membership), _guard(container, host, membership))
    ]


@hookimpl
def pycore_launch(container: Container, host: Host) -> Iterable[Operation]:
    return [Namespaces(("network",))]


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterable[Operation]:
    everywhere = memberships(container, host)
    ways_out = [each.network for each in everywhere if each.network.bridge and not each.network.internal]
    warn(host, ways_out, _published(container))
    return [
        *(_link(each) for each in everywhere if each.network.driver == BRIDGE),
        *(DefaultRoute(each.device, each.way_out) for each in everywhere if each.gateway),
        *(_announce(container, each) for each in everywhere),
        *publish(container, host, _published(container), everywhere),
    ]


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    everywhere = known_memberships(container, host)
    if not everywhere:
        return {}
    first = next((each for each in everywhere if each.gateway), everywhere[0])
    return {
        "address": first.addresses[0],
        "gateway": first.network.gateways[0],
        "network": first.network.name,
        "device": first.peer,
        "networks": {each.network.name: _told(each) for each in everywhere},
        "ports": [str(ports) for ports in _published(container)],
    }


def _told(membership: Membership) -> dict[str, Any]:
    """What is shown of a membership."""
    return {
        "device": membership.device,
        "addresses": list(membership.interfaces),
        "gateways": list(membership.network.gateways),
        "mac": membership.mac,
        "aliases": list(membership.aliases),
        "peer": membership.peer,
    }


@hookimpl
def pycore_stats(container: Container, host: Host, pid: int) -> Mapping[str, float]:
    """What came in and went out, by all devices but loopback (proc_pid_net(5), dev)."""
    try:
        lines = host.look.read(f"/proc/{pid}/net/dev").splitlines()[2:]
    except OSError:  # it has just ended
        return {}
    rows = [line.partition(":")[2].split() for line in lines if line.partition(":")[0].strip() != "lo"]
    if not rows:
        return {}
    return {
        "network_receive_bytes_total": sum(int(row[0]) for row in rows),
        "network_transmit_bytes_total": sum(int(row[8]) for row in rows),
    }


@hookimpl
def pycore_service(host: Host, kernel: Kernel) -> Service:
    """A watch over the rules."""
    return Watch(host, kernel)


@hookimpl
def pycore_leftovers(host: Host, known: Collection[Operation]) -> Iterable[Operation]:
    """Networks, leases, ports and devices that no container has."""
    return leftovers(host, known)


def _join(container: Container, host: Host, membership: Membership) -> ops.Join:
    network = membership.network
    return ops.Join(
        network.name, network.record(), network.directory, container.id, container.full_name, membership.device,
        membership.addresses, network.bridge, host.instance,
    )  # fmt: skip


def _link(membership: Membership) -> ops.Link:
    network = membership.network
    return ops.Link(
        membership.device, membership.peer, network.bridge, membership.interfaces, membership.mac, network.mtu
    )  # fmt: skip


def _announce(container: Container, membership: Membership) -> Announce:
    found = (getattr(section, "hostname", None) for section in container)
    hostname = next((str(name) for name in found if name), container.name)
    names = tuple(dict.fromkeys((container.name, container.service, hostname)))
    network = membership.network
    return Announce(
        network.name, network.directory, container.id, container.app.name, names, membership.aliases,
        membership.addresses,
    )  # fmt: skip


def _published(container: Container) -> list[Ports]:
    return [read(entry) for entry in container[Bridge].ports]


def _guard(container: Container, host: Host, membership: Membership) -> Guard:
    return Guard(
        membership.peer, membership.mac, membership.addresses, membership.network.directory, host.instance,
        container.full_name,
    )  # fmt: skip


def _entries(app: App) -> Iterator[tuple[Place, Ports]]:
    for container in _bridged(app):
        for index, ports in enumerate(_published(container)):
            yield ("container", container.service, *PLACE, index), ports


def _bridged(app: App) -> Iterator[Container]:
    return (container for container in app.containers.values() if Bridge in container)
