"""``port``: where the ports of a container that runs are on the host."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pycore.cli.session import Session
from pycore.errors import NotFound
from pycore.plan import container_of
from pycore.records.state import ContainerRecord
from pycore.spec import Container

from pycore_network.bridge import Bridge
from pycore_network.commands.explaining import port_of
from pycore_network.pasta import PastaNetwork
from pycore_network.portentries import PortTable, read
from pycore_network.ports import ANYWHERE, version_of


@dataclass(frozen=True)
class Place:
    """One port of a container, at one address of the host."""

    port: int
    protocol: str
    host_ip: str
    """``0.0.0.0`` or ``::`` for all that are of a family."""
    host_port: int

    def __str__(self) -> str:
        """As whoever connects there writes it."""
        return f"[{self.host_ip}]:{self.host_port}" if ":" in self.host_ip else f"{self.host_ip}:{self.host_port}"


def port(session: Session, arguments: argparse.Namespace) -> int:
    """Say it of all, or of one. Raises NotFound where that leads nowhere."""
    engine = session.engine
    record = engine.find(arguments.container)
    container = container_of(record, engine.plugins)
    found = list(_places(container, _versions(engine.inspect(record)))) if record.pid else []
    if arguments.port is None:
        session.show(
            [asdict(each) for each in found],
            lambda: "".join(f"{each.port}/{each.protocol} -> {each}\n" for each in found),
        )
        return 0
    wanted = port_of(arguments.port)
    fitting = [each for each in found if (each.port, each.protocol) == wanted]
    if not fitting:
        raise _nowhere(record, arguments.port)
    session.show([asdict(each) for each in fitting], lambda: "".join(f"{each}\n" for each in fitting))
    return 0


def _nowhere(record: ContainerRecord, port: str) -> NotFound:
    name = record.full_name
    if not record.pid:
        return NotFound(f"{name} does not run: no port leads to it", hint=f"pycore start {name}")
    return NotFound(f"no port of the host leads to {port} of {name}", hint=f"pycore port {name}")


def _places(container: Container, versions: tuple[int, ...]) -> Iterator[Place]:
    """Port by port, as the spec has them."""
    for ports in map(read, _entries(container)):
        addresses = [ports.host_ip] if ports.host_ip else [ANYWHERE[version] for version in versions]
        for step in range(ports.count):
            for address in addresses:
                yield Place(ports.port + step, ports.protocol, address, ports.host_port + step)


def _entries(container: Container) -> Sequence[str | PortTable]:
    if Bridge in container:
        return container[Bridge].ports
    return container[PastaNetwork].ports if PastaNetwork in container else ()


def _versions(told: Mapping[str, Any]) -> tuple[int, ...]:
    """The families in which a container can be reached, as its driver tells: both, where it gives no addresses."""
    networks: Mapping[str, Any] = told.get("networks", {})
    found = {version_of(address) for each in networks.values() for address in each["addresses"]}
    return tuple(version for version in ANYWHERE if version in found or not found)
