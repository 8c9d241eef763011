"""The driver ``pasta``: a way out and published ports without any power over the host's network, for a normal user.

What the container sends, a process of that user's sends in its own name (passt.top). It has the host's address, and
shares no network with other containers: they meet through ports of the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, Requirement, hookimpl
from pycore.launch.namespaces import Namespaces
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import App, Change, Container, Many, Section, setting

from pycore_network.bridge import pycore_stats as pycore_stats  # what any device has counted
from pycore_network.holders import port_problem
from pycore_network.ops.pasta import Pasta
from pycore_network.portentries import Entry, read
from pycore_network.ports import ALL, HOST, Place, Ports, twice

PASTA = "pasta"
_PROGRAMS = ("/usr/bin/pasta", "/usr/local/bin/pasta")
_TUN = "/dev/net/tun"
_INSTALL = "apt-get install passt"
_FIRST_FREE = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class PastaNetwork(Section):
    """Which of a container's ports the host publishes."""

    table: ClassVar[str] = "container.*.network"

    ports: Many[Entry] = setting(
        (),
        doc='As with the driver bridge, but for sctp, `allow_from`, `proxy` and `expose = "lan"`.',
        change=Change.RESTART,
        example=["8080:80", "127.0.0.1:5353:53/udp"],
        flags=("-p", "--publish"),
    )


@hookimpl
def pycore_driver() -> Driver:
    return Driver("network", PASTA, "A way out and published ports for a normal user, by pasta.", rootless=True)


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [PastaNetwork]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """For those who cannot have the driver bridge."""
    if look.owns_network():
        return
    yield Requirement("pasta", bool(_program(look)), f'network = "{PASTA}"', _INSTALL)
    yield Requirement(
        f"{_TUN}, for everybody to open", look.is_writable(_TUN), f'network = "{PASTA}"', f"as root: chmod 666 {_TUN}"
    )


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    entries = list(_entries(app))
    for place, ports in entries:
        for word in _beyond(ports):
            yield Problem(place, f"pasta knows nothing of {word}", 'leave it out, or take `driver = "bridge"`')
    for place, port, before in twice(entries):
        yield Problem(place, f"port {port} of the host is published twice: also by container {before[1]!r}")


@hookimpl
def pycore_launch(container: Container, host: Host) -> Iterable[Operation]:
    return [Namespaces(("network",))]


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterable[Operation]:
    published = [read(entry) for entry in container[PastaNetwork].ports]
    for index, ports in enumerate(published):
        problem = _in_the_way(container, host, ports)
        if problem:
            host.problems.append(Problem(("network", "ports", index), *problem))
    program = _program(host.look)
    if not program:
        _object(host, "pasta, which makes a normal user's network, is not installed", _INSTALL)
    elif not host.look.is_writable(_TUN):
        _object(host, f"pasta needs {_TUN}, which this user may not open", f"as root: chmod 666 {_TUN}")
    specs = {name: tuple(_spec(each) for each in published if each.protocol == name) for name in ("tcp", "udp")}
    return [Pasta(program or _PROGRAMS[0], f"{host.runtime_dir(container)}/{PASTA}", specs["tcp"], specs["udp"])]


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    return {"ports": [str(read(entry)) for entry in container[PastaNetwork].ports]}


def _entries(app: App) -> Iterator[tuple[Place, Ports]]:
    for container in app.containers.values():
        if PastaNetwork in container:
            for index, entry in enumerate(container[PastaNetwork].ports):
                yield ("container", container.service, "network", "ports", index), read(entry)


def _beyond(ports: Ports) -> Iterator[str]:
    """What only rules in the kernel can do."""
    if ports.protocol not in ("tcp", "udp"):
        yield ports.protocol
    if ports.expose not in (ALL, HOST):
        yield f'`expose = "{ports.expose}"`'
    if ports.allow_from:
        yield "`allow_from`"
    if ports.proxy:
        yield "`proxy`"


def _in_the_way(container: Container, host: Host, ports: Ports) -> tuple[str, str] | None:
    """What is wrong, and a hint."""
    message = port_problem(host, container, ports)
    if message:
        return message, "take another port of the host, or end what holds it"
    try:
        first = int(host.look.read(_FIRST_FREE))
    except (OSError, ValueError):
        return None
    if ports.host_port < first and not host.look.owns_network():
        lines = f"take one from {first} up, or as root: sysctl -w net.ipv4.ip_unprivileged_port_start={ports.host_port}"
        return f"a normal user may not publish port {ports.host_port} of the host", lines
    return None


def _spec(ports: Ports) -> str:
    """As pasta writes it; the loopback of one family stands for this host alone."""
    address = ports.host_ip or ("127.0.0.1" if ports.expose == HOST else "")
    rows = (ports.host_port, ports.port)
    host, inside = (f"{row}-{row + ports.count - 1}" if ports.count > 1 else str(row) for row in rows)
    return f"{address}/{host}:{inside}" if address else f"{host}:{inside}"


def _program(look: Look) -> str:
    return next((path for path in _PROGRAMS if look.exists(path)), "")


def _object(host: Host, message: str, hint: str) -> None:
    host.complain(Problem(("network", "driver"), message, hint))
