"""What the bridge driver does on the host: the network with the addresses, and the link."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network import ruleset
from pycore_network.ops import kept, rules
from pycore_network.ops.device import delete
from pycore_network.ops.lease import Lease, concerning

if TYPE_CHECKING:
    from pycore_network.elements import Element

_FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_FORWARDING6 = "/proc/sys/net/ipv6/conf/all/forwarding"
_SETTINGS6 = "/proc/sys/net/ipv6/conf"
_SMALL = 256
"""Bytes: more than is ever in the files that are read here."""


@dataclass(frozen=True)
class Join(Lease):
    """Take addresses in a network, and make the network: bridge, gateways' addresses, part in the nftables table.

    Forwarding is left on when the last network goes: by then others may rely on it, and nobody can tell.
    """

    bridge: str
    table: str

    def make(self, ctx: Context) -> None:
        self._add_rules(ctx)
        if not self.is_made(ctx):
            self._make_bridge(ctx)

    def is_made(self, ctx: Context) -> bool:
        """Whether it is there and finished: the record is written last."""
        try:
            ctx.kernel.link_index(self.bridge)
        except OSError:
            return False
        return self.has_record(ctx)

    def take_down(self, ctx: Context) -> None:
        self._delete_links(ctx)
        self._delete_rules(ctx)

    def _make_bridge(self, ctx: Context) -> None:
        from pycore_network import links
        from pycore_network.elements import link_local

        kernel, values = ctx.kernel, self.values
        mac = links.mac_of(values["gateways"][0])
        kernel.netlink([links.make_bridge(self.bridge, mac, values["mtu"])])
        self._settle_ipv6(ctx)
        index = kernel.link_index(self.bridge)
        pairs = zip(values["gateways"], values["subnets"], strict=True)
        own = [links.add_address(index, gateway, _prefix(subnet)) for gateway, subnet in pairs]
        if self._has(6):  # one of its own making would be asked about first, and until then nobody is looked for
            own += [links.without_ipv6(index), links.add_address(index, link_local(mac), 64)]
        kernel.netlink(own)
        kernel.write(f"/proc/sys/net/ipv4/conf/{self.bridge}/route_localnet", "1")
        if self._has(6):
            with suppress(FileExistsError):
                kernel.netlink([links.answer_loopback6(index)])
        if not values["internal"]:
            self._forward(ctx)
        self.keep_record(ctx)

    def _settle_ipv6(self, ctx: Context) -> None:
        """No IPv6 at the host's end where the network has none; in no case what a container advertises is believed."""
        settings = f"{_SETTINGS6}/{self.bridge}"
        if ctx.kernel.exists(settings):
            ctx.kernel.write(f"{settings}/accept_ra", "0")
            ctx.kernel.write(f"{settings}/disable_ipv6", "0" if self._has(6) else "1")

    def _has(self, version: int) -> bool:
        return any((":" in subnet) == (version == 6) for subnet in self.values["subnets"])

    def _forward(self, ctx: Context) -> None:
        """Let the host forward. Writing it anew would reset settings of every device (ip-sysctl.rst)."""
        if self._has(4) and ctx.kernel.read(_FORWARDING, _SMALL).strip() == "0":
            ctx.kernel.write(_FORWARDING, "1")
        if self._has(6) and ctx.kernel.read(_FORWARDING6, _SMALL).strip() == "0":
            self._keep_listening(ctx)
            ctx.kernel.write(_FORWARDING6, "1")

    def _keep_listening(self, ctx: Context) -> None:
        """Devices that follow routers do so still: a host that forwards gives up the routes it has of them, unless
        accept_ra is 2 (ip-sysctl.rst).
        """
        for device in ctx.kernel.listdir(_SETTINGS6):
            path = f"{_SETTINGS6}/{device}/accept_ra"
            if device in ("all", "default") or not ctx.kernel.exists(path):
                continue
            if ctx.kernel.read(path, _SMALL).strip() == "1":
                ctx.kernel.write(path, "2")

    def _add_rules(self, ctx: Context) -> None:
        kept.keep(ctx.kernel, self.directory, kept.ITSELF, self.table, self.elements())
        kept.put_or_make(ctx.kernel, self._networks.rpartition("/")[0], self.table, self.elements())

    def elements(self) -> list[Element]:
        """What makes it a network for the rules."""
        from pycore_network.elements import of_network

        values = self.values
        return of_network(
            self.network, self.bridge, values["subnets"], internal=values["internal"], isolated=values["isolated"]
        )  # fmt: skip

    def _delete_rules(self, ctx: Context) -> None:
        """The tables go with the last network that has rules. Without the library nothing was put in."""
        run_dir = self._networks.rpartition("/")[0]
        try:
            if kept.any_rules(ctx.kernel, run_dir, but=self.directory):
                rules.withdraw(ctx.kernel, self.table, self.elements())
            else:
                ctx.kernel.nft(ruleset.delete(self.table))
        except OSError as error:
            if error.errno != errno.ENOSYS:
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
        return bool(super().probe(ctx)) and self._has_rules(ctx)

    def _has_rules(self, ctx: Context) -> bool:
        return rules.in_force(ctx.kernel, self.table, self.elements())

    def explain(self) -> str:
        values = self.values
        way = "no way out" if values["internal"] else "masquerade, forwarding on"
        return f"{super().explain()}: bridge {self.bridge}, {' and '.join(values['gateways'])}; {way}"


def _prefix(subnet: str) -> int:
    return int(subnet.partition("/")[2])


@dataclass(frozen=True)
class Link(Operation):
    """A veth pair: one end in the container, with addresses, its peer a port of the bridge."""

    step = Step.LINK
    device: str
    """In the container: ``eth0``."""
    peer: str
    """Its name on the host."""
    bridge: str
    addresses: tuple[str, ...]
    """Each with its prefix: ``10.208.0.7/22``."""
    mac: str
    mtu: int

    def do(self, ctx: Context) -> None:
        with concerning(self.peer):
            try:
                self._link(ctx)
            except FileExistsError:
                # An earlier process of the container had it, and the kernel takes a namespace down later than
                # its last process ends; or who shares the container's network has kept it.
                self._delete(ctx)
                delete(ctx, self.device, ctx.pid)
                self._link(ctx)

    def _link(self, ctx: Context) -> None:
        from threading import get_native_id

        from pycore_network import links
        from pycore_network.elements import link_local

        group, owner = links.group_of(self.bridge), get_native_id()
        inside = [
            links.make_veth(self.device, self.mac, self.mtu, self.peer, group, owner),
            *links.settle(self.device, self.addresses, link_local(self.mac)),
        ]
        ctx.kernel.netlink(inside, ctx.pid)
        index = ctx.kernel.link_index(self.bridge)
        ctx.kernel.netlink([links.join_bridge(self.peer, index), links.reflect(self.peer)])
        ctx.kernel.link_wait([self.peer, self.bridge])
        ctx.kernel.link_wait([self.device], ctx.pid)

    def _delete(self, ctx: Context) -> None:
        delete(ctx, self.peer)

    def undo(self, ctx: Context) -> None:
        """Delete it where the process lives and leaves this network alone. Else the pair goes with the namespace, or,
        where that is kept alive, with the network: to delete it here would cost 20 ms for each container, for what the
        kernel is doing anyway.
        """
        if ctx.pid:
            self._delete(ctx)

    def probe(self, ctx: Context) -> bool | None:
        """Its end on the host tells of both: neither is there without the other."""
        return ctx.kernel.link_master(self.peer) == self.bridge

    def explain(self) -> str:
        return f"link veth {self.peer} <-> {self.device} in the container, {', '.join(self.addresses)}, {self.mac}"
