"""What macvlan and ipvlan have in common: a container has a device of its own on one of the host's."""

from __future__ import annotations

from collections.abc import Iterator

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.ops import Operation
from pycore.spec import App, Container

from pycore_network.finding import PLACE
from pycore_network.memberships import Membership, memberships
from pycore_network.networks import driver_of, table_of
from pycore_network.ops.child import Child
from pycore_network.ops.lease import Lease


def joined(container: Container, host: Host, kind: str) -> Iterator[Operation]:
    """The lease of addresses in each network of a kind."""
    for each in memberships(container, host, kind):
        network = each.network
        parent = network.options["parent"]
        if parent not in host.look.links():
            message = f"the network {network.name!r} is on {parent}, and this host has no such device"
            host.complain(Problem(PLACE, message))
        yield Lease(
            network.name, network.record(), network.directory, container.id, container.full_name, each.device,
            each.addresses,
        )  # fmt: skip


def linked(container: Container, host: Host, kind: str, mac: bool) -> Iterator[Operation]:
    """The device in each network of a kind; ``mac`` says whether one has a hardware address of its own."""
    for each in memberships(container, host, kind):
        yield _child(each, kind, each.mac if mac else "")


def _child(membership: Membership, kind: str, mac: str) -> Child:
    network = membership.network
    mode, parent = network.options["mode"], network.options["parent"]
    return Child(membership.device, kind, mode, parent, membership.interfaces, mac, network.mtu)


def unfit(app: App, kind: str) -> Iterator[Problem]:
    """Tables of a kind that leave open what nobody can find out: which addresses the parent's network has."""
    for word in app.tables.get("network", {}):
        table = table_of(app, word)
        if driver_of(app, word) == kind and not table.subnets and not table.external:
            message = f"a network of the driver {kind} needs `subnets`: those of the network that `parent` is in"
            yield Problem(("network", word), message, at_key=True)
