"""What the bridge driver does on the host: the network with the address, the link, and the published ports."""

from __future__ import annotations

import errno
import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pycore.errors import Conflict
from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network import ruleset

RECORD = "network.json"
"""What is kept of a network, in its directory, beside the leases."""
_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_SMALL = 256
"""Bytes: more than is ever in the files that are read here."""


@contextmanager
def _concerning(name: str) -> Generator[None]:
    """Netlink and nftables know no file name; an error without one gets the name of what it is about."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or name
        raise


@dataclass(frozen=True)
class Join(Operation):
    """Take an address in a network, and make the network: bridge, gateway address, part in the nftables table.

    The lease is a file that can be made only once. It is one operation with the network, under one lock, because
    the network lasts as long as anybody has a lease: whoever leaves last takes it down. Each container that joins
    makes sure of the network anew, which mends what somebody took away (``nft flush ruleset``). IPv4 forwarding is
    left on when the last network goes: by then others may rely on it, and nobody can tell.
    """

    step = Step.NETWORK
    network: str
    bridge: str
    subnet: str
    gateway: str
    address: str
    directory: str
    table: str
    container: str
    """The id."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(f"{self.directory}/leases")
        with ctx.kernel.locked(self._networks), _concerning(self.bridge):
            self._lease(ctx)
            self._add_rules(ctx)
            if not self._has_bridge(ctx):
                self._make_bridge(ctx)

    def undo(self, ctx: Context) -> None:
        if not ctx.kernel.exists(self.directory):
            return
        with ctx.kernel.locked(self._networks), _concerning(self.bridge):
            if self._leased_by(ctx) == self.container:
                ctx.kernel.unlink(self._lease_path)
            if not ctx.kernel.listdir(f"{self.directory}/leases"):
                self._delete_links(ctx)
                self._delete_rules(ctx)
                ctx.kernel.rmtree(self.directory)

    @property
    def _networks(self) -> str:
        return self.directory.rpartition("/")[0]

    @property
    def _lease_path(self) -> str:
        return f"{self.directory}/leases/{self.address}"

    def _lease(self, ctx: Context) -> None:
        ctx.kernel.mkdir(f"{self.directory}/leases")  # again: the last to leave may have gone before we had the lock
        try:
            ctx.kernel.create(self._lease_path, self.container)
        except FileExistsError:
            if self._leased_by(ctx) != self.container:
                raise Conflict(f"the address {self.address} is leased to another container") from None

    def _leased_by(self, ctx: Context) -> str:
        try:
            return ctx.kernel.read(self._lease_path, _SMALL)
        except FileNotFoundError:
            return ""

    def _has_bridge(self, ctx: Context) -> bool:
        """Whether it is there and finished: the record is written last."""
        try:
            ctx.kernel.link_index(self.bridge)
        except OSError:
            return False
        return ctx.kernel.exists(f"{self.directory}/{RECORD}")

    def _make_bridge(self, ctx: Context) -> None:
        from pycore_network import links

        kernel, prefix = ctx.kernel, int(self.subnet.partition("/")[2])
        kernel.netlink([links.make_bridge(self.bridge, self.gateway)])
        kernel.netlink([links.add_address(kernel.link_index(self.bridge), self.gateway, prefix)])
        kernel.write(f"/proc/sys/net/ipv4/conf/{self.bridge}/route_localnet", "1")
        if kernel.read(_FORWARDING, _SMALL).strip() == "0":  # writing resets settings of every device: ip-sysctl.rst
            kernel.write(_FORWARDING, "1")
        kernel.replace(f"{self.directory}/{RECORD}", json.dumps({"subnet": self.subnet}))

    def _add_rules(self, ctx: Context) -> None:
        joining = ruleset.add_network(self.table, self.bridge, self.subnet)
        try:
            ctx.kernel.nft(joining)
        except FileNotFoundError:
            ctx.kernel.nft(ruleset.create(self.table) + joining)

    def _delete_rules(self, ctx: Context) -> None:
        """The table goes with the last network. Without the library nothing was put in."""
        alone = ctx.kernel.listdir(self._networks) == [self.directory.rpartition("/")[2]]
        leaving = ruleset.delete_network(self.table, self.bridge, self.subnet)
        try:
            ctx.kernel.nft(ruleset.delete(self.table) if alone else leaving)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOSYS):
                raise

    def _delete_links(self, ctx: Context) -> None:
        """The bridge, and devices of containers whose namespace somebody else keeps alive."""
        from pycore_network import links

        try:
            ctx.kernel.link_index(self.bridge)
        except OSError:
            return
        ctx.kernel.netlink([links.delete_group(links.group_of(self.bridge))])

    def probe(self, ctx: Context) -> bool | None:
        table, bridge = f"inet {self.table}", f'"{self.bridge}"'
        elements = {"bridges": bridge, "within": f"{bridge} . {bridge}", "subnets": self.subnet}
        return (
            self._leased_by(ctx) == self.container
            and self._has_bridge(ctx)
            and all(ctx.kernel.nft_elements(table, name, key) for name, key in elements.items())
        )

    def explain(self) -> str:
        return (
            f"join network {self.network} as {self.address}: bridge {self.bridge}, {self.gateway} in {self.subnet}; "
            f"masquerade in nft table inet {self.table}; IPv4 forwarding on"
        )


@dataclass(frozen=True)
class Link(Operation):
    """A veth pair: ``eth0`` with address and default route in the container, its peer a port of the bridge."""

    step = Step.LINK
    device: str
    """The peer's name on the host."""
    bridge: str
    address: str
    prefix: int
    gateway: str

    def do(self, ctx: Context) -> None:
        with _concerning(self.device):
            try:
                self._link(ctx)
            except FileExistsError:
                # An earlier process of the container had it, and the kernel takes a namespace down later than
                # its last process ends.
                self._delete(ctx)
                self._link(ctx)

    def _link(self, ctx: Context) -> None:
        from threading import get_native_id

        from pycore_network import links

        inside = [
            links.make_veth(self.address, self.device, links.group_of(self.bridge), get_native_id()),
            links.loopback_up(),
            links.add_address(links.ETH0_INDEX, self.address, self.prefix),
            links.default_route(self.gateway),
        ]
        ctx.kernel.netlink(inside, ctx.pid)
        index = ctx.kernel.link_index(self.bridge)
        ctx.kernel.netlink([links.join_bridge(self.device, index), links.reflect(self.device)])
        ctx.kernel.link_wait([self.device, self.bridge])
        ctx.kernel.link_wait(["eth0"], ctx.pid)

    def _delete(self, ctx: Context) -> None:
        from pycore_network import links

        try:
            ctx.kernel.netlink([links.delete_link(self.device)])
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def undo(self, ctx: Context) -> None:
        """Nothing: the pair goes with the namespace of the container, or, where that is kept alive, with the network.

        To delete it here would cost 20 ms for each container, for what the kernel is doing anyway.
        """

    def probe(self, ctx: Context) -> bool | None:
        """Its end on the host tells of both: neither is there without the other."""
        return ctx.kernel.link_master(self.device) == self.bridge

    def explain(self) -> str:
        return f"link veth {self.device} <-> eth0 in the container, {self.address}/{self.prefix} via {self.gateway}"


@dataclass(frozen=True)
class Publish(Operation):
    """Ports of the host that lead to the container: an element of a map each.

    A file for each port says whose it is; it can be made only once, so two containers never share one.
    """

    step = Step.PUBLISH
    protocol: str
    host_ip: str
    host_port: int
    address: str
    port: int
    count: int
    directory: str
    table: str
    container: str
    """The id."""
    name: str
    """``APP/NAME``."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.directory)
        for _, _, port in self.published():
            self._reserve(ctx, port)
        targets = [(self.address, self.port + step) for step in range(self.count)]
        with _concerning(f"port {self.host_port}/{self.protocol}"):
            ctx.kernel.nft(ruleset.add_ports(self.table, self.published(), targets, self.name))

    def undo(self, ctx: Context) -> None:
        ours = [key for key in self.published() if self._holder(ctx, key[2])[0] == self.container]
        if not ours:
            return
        with _concerning(f"port {self.host_port}/{self.protocol}"):
            self._withdraw(ctx, ours)
        for _, _, port in ours:
            ctx.kernel.unlink(self._path(port))

    def _withdraw(self, ctx: Context, keys: list[ruleset.Key]) -> None:
        """All at once; one by one where some are gone already."""
        try:
            ctx.kernel.nft(ruleset.delete_ports(self.table, keys))
        except FileNotFoundError:
            for key in keys:
                with suppress(FileNotFoundError):
                    ctx.kernel.nft(ruleset.delete_ports(self.table, [key]))

    def _reserve(self, ctx: Context, port: int) -> None:
        try:
            ctx.kernel.create(self._path(port), f"{self.container} {self.name}")
        except FileExistsError:
            holder, name = self._holder(ctx, port)
            if holder != self.container:
                raise Conflict(f"port {port}/{self.protocol} of the host leads to {name} already") from None

    def _holder(self, ctx: Context, port: int) -> tuple[str, str]:
        """Id and name of the container that a port belongs to; empty where it is free."""
        try:
            identity, _, name = ctx.kernel.read(self._path(port), _SMALL).partition(" ")
        except FileNotFoundError:
            return "", ""
        return identity, name

    def published(self) -> list[ruleset.Key]:
        """What is published, port by port."""
        return [(self.protocol, self.host_ip, self.host_port + step) for step in range(self.count)]

    def files(self) -> list[str]:
        """The names of the files that reserve the ports."""
        return [self._path(port).rpartition("/")[2] for _, _, port in self.published()]

    def _path(self, port: int) -> str:
        return f"{self.directory}/{self.protocol}-{self.host_ip}-{port}"

    def probe(self, ctx: Context) -> bool | None:
        return all(
            self._holder(ctx, key[2])[0] == self.container
            and f"{self.address} . {self.port + step}"
            in ctx.kernel.nft_elements(f"inet {self.table}", ruleset.map_of(key), ruleset.key_text(key)).values()
            for step, key in enumerate(self.published())
        )

    def explain(self) -> str:
        host, inside = f"{self.host_ip}:{self.host_port}", f"{self.address}:{self.port}"
        more = f" and the {self.count - 1} after it" if self.count > 1 else ""
        return f"publish {host}/{self.protocol} -> {inside}{more}, in nft table inet {self.table}"
