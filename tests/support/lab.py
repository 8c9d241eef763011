"""A host with the bridge driver at work, its neighbour on the LAN, and containers: all of them network namespaces."""

from __future__ import annotations

import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel
from pycore.ops import Context, Operation
from pycore.spec import App, Container, Sections
from pycore_network import bridge
from pycore_network.bridge import Bridge
from pycore_network.memberships import Networks, memberships
from pycore_network.networks import NetworkTable

from support.netns import Namespace

LAN_HOST, LAN_NEIGHBOUR = "192.0.2.1", "192.0.2.2"
LAN_HOST6, LAN_NEIGHBOUR6 = "2001:db8::1", "2001:db8::2"


@dataclass
class Running:
    """A container: a process in a namespace of its own, and what was done for it."""

    container: Container
    namespace: Namespace
    operations: list[Operation]
    addresses: tuple[str, ...]
    """In its first network."""
    context: Context

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self.addresses[0]

    @property
    def address6(self) -> str:
        """Its IPv6 address."""
        return self.addresses[1]


@dataclass
class Lab:
    """A host with a neighbour; operations run on the host."""

    host: Namespace
    neighbour: Namespace
    run_dir: Path
    kernel: Kernel = field(default_factory=Kernel)
    running: list[Running] = field(default_factory=list[Running])

    def view(self) -> Host:
        return Host(self.kernel, self.run_dir, self.run_dir)

    def start(self, name: str = "shop/web", *, namespace: Namespace | None = None, **fields: Any) -> Running:
        app, _, short = name.partition("/")
        container = make(app, short, **fields)
        namespace = namespace or Namespace(loopback=True)
        context = Context(self.kernel, name, pid=namespace.pid)
        with self.host.entered():
            view = self.view()
            operations = describe(container, view)
            assert not view.problems
            addresses = memberships(container, view)[0].addresses
            running = Running(container, namespace, operations, addresses, context)
            self.running.append(running)
            for operation in operations:
                operation.do(context)
        return running

    def change(self, running: Running, **fields: Any) -> None:
        """A live change: what is not described any more is taken back, what is new is done."""
        app, _, short = running.context.container.partition("/")
        with self.host.entered():
            view = self.view()
            after = describe(make(app, short, **fields), view)
            assert not view.problems
            for operation in reversed([each for each in running.operations if each not in after]):
                operation.undo(running.context)
            for operation in [each for each in after if each not in running.operations]:
                operation.do(running.context)
            running.operations = after

    def stop(self, running: Running) -> None:
        self.running.remove(running)
        running.namespace.close()
        with self.host.entered():
            for operation in reversed(running.operations):
                operation.undo(running.context)

    def devices(self) -> set[str]:
        with self.host.entered():
            return {name for _, name in socket.if_nameindex()}

    def tables(self) -> list[str]:
        return self.host.run("nft list tables").splitlines()

    def filter_on_bridges(self, value: str) -> None:
        """Have br_netfilter, where there is one, apply the rules of IP to what stays within a bridge, or not."""
        if "bridge" in self.host.run("ls /proc/sys/net").split():
            for family in ("iptables", "ip6tables"):
                self.host.run(f"sysctl -q -w net.bridge.bridge-nf-call-{family}={value}")

    def close(self) -> None:
        for running in list(self.running):
            self.stop(running)
        self.host.close()
        self.neighbour.close()


def describe(container: Container, view: Host) -> list[Operation]:
    """All that the bridge driver does for a container."""
    return [*bridge.pycore_prepare(container, view), *bridge.pycore_attach(container, view)]


def make(
    app: str,
    name: str,
    *,
    network: str | None = None,
    subnet: str | None = None,
    ports: Sequence[str | Mapping[str, Any]] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
) -> Container:
    """A container, in the networks of ``tables`` or in one that is named and has a subnet as asked for."""
    declared = tables or {"default": {"name": network, "subnets": [subnet] if subnet else []}}
    sections: dict[str, Sections] = {
        word: {NetworkTable: NetworkTable.model_validate(values)} for word, values in declared.items()
    }
    identity = sha256(f"{app}/{name}".encode()).hexdigest()[:12]
    own: Sections = {
        Networks: Networks(networks=tuple(declared)),
        Bridge: Bridge.model_validate({"ports": list(ports)}),
    }
    return Container(App(app, Path("/"), tables={"network": sections}), name, {"network": "bridge"}, own, identity)


@contextmanager
def made_lab(directory: Path) -> Generator[Lab]:
    """A host and its neighbour, which see each other by IPv4 and IPv6."""
    host, neighbour = Namespace(loopback=True), Namespace(loopback=True)
    lab = Lab(host, neighbour, directory / "run")
    try:
        host.run(f"ip link add lan0 type veth peer name lan0 netns {neighbour.pid}")
        for side, address, address6 in (
            (host, LAN_HOST, LAN_HOST6), (neighbour, LAN_NEIGHBOUR, LAN_NEIGHBOUR6)
        ):  # fmt: skip
            side.run(f"ip address add {address}/24 dev lan0")
            side.run(f"ip address add {address6}/64 dev lan0 nodad")
            side.bring_up("lan0")
        for side in (host, neighbour):
            lab.kernel.link_wait(["lan0"], side.pid)
        host.wait_until_reached(LAN_NEIGHBOUR, LAN_NEIGHBOUR6)
        yield lab
    finally:
        lab.close()


def refused(namespace: Namespace, target: tuple[str, int]) -> None:
    """Nobody answers there."""
    with namespace.socket(address=target[0]) as client:
        client.settimeout(0.3)
        with pytest.raises((TimeoutError, OSError)):
            client.connect(target)
