"""The driver ``bridge``: a network of the host's own, an address in it, a way out, and published ports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from typing import Annotated, Any, ClassVar

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, Requirement, hookimpl
from pycore.launch.namespaces import Namespaces
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import App, Change, Container, Many, Name, Section, Text, pick, setting

from pycore_network import ports, requirements
from pycore_network.addresses import Network, find_address, find_network, leased
from pycore_network.holders import port_problem
from pycore_network.leftovers import leftovers
from pycore_network.ops import bridge as ops

DRIVER = Driver(
    "network",
    "bridge",
    "A network of the host's own, with a way out and published ports.",
    default=True,
    of=("container", "network"),
)

DEFAULT = "default"
"""The network that an app has without declaring one."""


def _port(text: str) -> str:
    ports.parse(text)
    return text


def _subnet(text: str) -> str:
    try:
        subnet = IPv4Network(text)
    except ValueError:
        raise ValueError('must be an IPv4 network such as "10.20.0.0/24", with no host bits set') from None
    if subnet.prefixlen > 29:
        raise ValueError("has room for fewer than five containers; the smallest is a /29")
    if subnet.prefixlen < 8:
        raise ValueError("is larger than any private network; the largest is a /8")
    return text


class BridgedNetwork(Section):
    """A network that containers of this app, or of several, share."""

    table: ClassVar[str] = "network.*"

    name: Name | None = setting(
        None,
        doc="The network's name on the host. Containers of all apps that name it so are in one network. "
        "Without it the network is the app's own, named APP_NAME.",
        example="backend",
    )
    subnet: Annotated[Text, pydantic.AfterValidator(_subnet)] | None = setting(
        None,
        doc="The IPv4 network that addresses are taken from; the host has the first. "
        "Without it a free /22 of 10.208.0.0/12 is found.",
        example="10.20.0.0/24",
    )


class Bridge(Section):
    """The network that a container is in, and which of its ports the host publishes."""

    table: ClassVar[str] = "container.*.network"

    network: Name = setting(
        DEFAULT, doc="The network it joins: a table [network.NAME]. `default` need not be declared.", example="backend"
    )
    ports: Many[Annotated[Text, pydantic.AfterValidator(_port)]] = setting(
        (),
        doc="Ports of the host that lead to the container: [HOST_IP:]HOST_PORT:PORT[/udp], or two ranges of one "
        "length. They work from other hosts, from this one and from containers.",
        change=Change.LIVE,
        example=["8080:80", "127.0.0.1:5353:53/udp"],
        flags=("-p", "--publish"),
    )


@hookimpl
def pycore_driver() -> Driver:
    return DRIVER


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Bridge, BridgedNetwork]


@hookimpl
def pycore_requirements(look: Look) -> Iterable[Requirement]:
    yield requirements.net_admin(look)
    yield requirements.libnftables()
    yield requirements.forwarding()
    yield from requirements.modules(look)


@hookimpl
def pycore_run(source: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    """Containers of ``pycore run`` are all in one network, as Docker's are in its default bridge."""
    driver = source["container"][name].get("network", {}).get("driver", "bridge")
    return {"network": {DEFAULT: {"name": "run"}}} if driver == "bridge" else {}


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    return [*_unknown_networks(app), *_ports_twice(app)]


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    network = _network(container, host)
    address = find_address(host, network, container)
    return [
        ops.Join(
            network.name, network.bridge, str(network.subnet), network.gateway, address,
            network.directory, host.instance, container.id,
        )
    ]  # fmt: skip


@hookimpl
def pycore_launch(container: Container, host: Host) -> Iterable[Operation]:
    return [Namespaces(("network",))]


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterable[Operation]:
    network = _network(container, host)
    address = find_address(host, network, container)
    link = ops.Link(device_of(container), network.bridge, address, network.subnet.prefixlen, network.gateway)
    return [link, *_publish(container, host, address)]


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    found = leased(host, _host_name(container), container)
    if found is None:
        return {}
    network, address = found
    return {
        "address": address,
        "gateway": network.gateway,
        "network": network.name,
        "device": device_of(container),
        "ports": [str(ports.parse(text)) for text in container[Bridge].ports],
    }


@hookimpl
def pycore_stats(container: Container, host: Host, pid: int) -> Mapping[str, float]:
    """What came in and went out (proc_pid_net(5), dev)."""
    try:
        lines = host.look.read(f"/proc/{pid}/net/dev").splitlines()
    except OSError:  # it has just ended
        return {}
    row = next((line.partition(":")[2].split() for line in lines if line.strip().startswith("eth0:")), None)
    if row is None:
        return {}
    return {"network_receive_bytes_total": int(row[0]), "network_transmit_bytes_total": int(row[8])}


@hookimpl
def pycore_leftovers(host: Host, known: Collection[Operation]) -> Iterable[Operation]:
    """Networks, leases, ports and devices that no container has."""
    return leftovers(host, known)


def device_of(container: Container) -> str:
    """The host's end of the container's veth pair, at most 15 characters (IFNAMSIZ)."""
    return f"pc{container.id[:13]}"


def _declared(container: Container) -> BridgedNetwork:
    sections = container.app.tables.get("network", {}).get(container[Bridge].network)
    return pick(sections, BridgedNetwork) if sections else BridgedNetwork()


def _host_name(container: Container) -> str:
    return _declared(container).name or f"{container.app.name}_{container[Bridge].network}"


def _network(container: Container, host: Host) -> Network:
    subnet = _declared(container).subnet
    return find_network(host, _host_name(container), IPv4Network(subnet) if subnet else None)


def _publish(container: Container, host: Host, address: str) -> Iterator[ops.Publish]:
    for index, text in enumerate(container[Bridge].ports):
        wanted = ports.parse(text)
        message = port_problem(host, container, wanted)
        if message:
            hint = "take another port of the host, or end what holds it"
            host.problems.append(Problem(("network", "ports", index), message, hint))
        yield ops.Publish(
            wanted.protocol, wanted.host_ip, wanted.host_port, address, wanted.port, wanted.count,
            f"{host.run_dir}/ports", host.instance, container.id, container.full_name,
        )  # fmt: skip


def _unknown_networks(app: App) -> Iterator[Problem]:
    declared = app.tables.get("network", {})
    for container in _bridged(app):
        name = container[Bridge].network
        path = ("container", container.service, "network", "network")
        if name not in declared and name != DEFAULT:
            yield Problem(path, f"no network {name!r} is declared", f"add a table [network.{name}]")
        elif name in declared and BridgedNetwork not in declared[name]:
            yield Problem(path, f"[network.{name}] has another driver than this container")


def _ports_twice(app: App) -> Iterator[Problem]:
    entries = (
        (("container", container.service, "network", "ports", index), ports.parse(text))
        for container in _bridged(app)
        for index, text in enumerate(container[Bridge].ports)
    )
    for place, port, before in ports.twice(entries):
        yield Problem(place, f"port {port} of the host is published twice: also by container {before[1]!r}")


def _bridged(app: App) -> Iterator[Container]:
    return (container for container in app.containers.values() if Bridge in container)
