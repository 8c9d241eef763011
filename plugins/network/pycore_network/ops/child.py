"""A device that lives on one of the host's: what macvlan and ipvlan give a container."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network.ops.device import delete
from pycore_network.ops.lease import concerning


@dataclass(frozen=True)
class Child(Operation):
    """A device of the container's own on a device of the host, with addresses in the network that this one is in."""

    step = Step.LINK
    device: str
    """In the container: ``eth0``."""
    kind: str
    """``macvlan`` or ``ipvlan``."""
    mode: str
    parent: str
    """The host's device."""
    addresses: tuple[str, ...]
    """Each with its prefix: ``192.0.2.7/24``."""
    mac: str
    """Empty where it has the parent's."""
    mtu: int

    def do(self, ctx: Context) -> None:
        with concerning(self.parent):
            try:
                self._make(ctx)
            except FileExistsError:  # who shares the container's network has kept it, with what was in it
                delete(ctx, self.device, ctx.pid)
                self._make(ctx)

    def _make(self, ctx: Context) -> None:
        from pycore_network import links

        parent = ctx.kernel.link_index(self.parent)
        made = links.make_child(self.device, self.kind, self.mode, parent, ctx.pid, self.mac, self.mtu)
        ctx.kernel.netlink([made])
        up = links.bring_up(links.index_of(self.device))
        ctx.kernel.netlink([*links.settle(self.device, self.addresses), up], ctx.pid)
        ctx.kernel.link_wait([self.device], ctx.pid)

    def undo(self, ctx: Context) -> None:
        """Delete it where the process lives and leaves this network alone; else it goes with the namespace."""
        if ctx.pid:
            delete(ctx, self.device, ctx.pid)

    def explain(self) -> str:
        where = f"{self.kind} ({self.mode}) on {self.parent}"
        return f"link {where} <-> {self.device} in the container, {', '.join((*self.addresses, self.mac)).strip(', ')}"
