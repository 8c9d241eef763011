"""What a network has left on the host that no container has any more: described only to be taken back."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network import ruleset
from pycore_network.elements import Element
from pycore_network.ops import kept, rules


@dataclass(frozen=True)
class LostDevice(Operation):
    """A network device."""

    step = Step.NETWORK
    device: str

    def undo(self, ctx: Context) -> None:
        from pycore_network import links

        try:
            ctx.kernel.netlink([links.delete_link(self.device)])
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def explain(self) -> str:
        return f"network device {self.device}"


@dataclass(frozen=True)
class LostElement(Operation):
    """An element of a set or a map of the nftables tables."""

    step = Step.NETWORK
    table: str
    family: str
    place: str
    key: str

    def undo(self, ctx: Context) -> None:
        rules.withdraw(ctx.kernel, self.table, [Element(self.family, self.place, self.key)])

    def explain(self) -> str:
        return f"element {self.key} of {self.place} in nft table {self.family} {self.table}"


@dataclass(frozen=True)
class LostTable(Operation):
    """The nftables tables, where no network is left that they could serve."""

    step = Step.NETWORK
    table: str

    def undo(self, ctx: Context) -> None:
        ctx.kernel.nft(ruleset.delete(self.table))

    def explain(self) -> str:
        return f"nft tables inet and bridge {self.table}"


@dataclass(frozen=True)
class LostRules(Operation):
    """What is written down of elements of a device that is no container's."""

    step = Step.NETWORK
    directory: str
    """Of the network."""
    device: str

    def undo(self, ctx: Context) -> None:
        kept.drop(ctx.kernel, self.directory, self.device)

    def explain(self) -> str:
        return f"rules for {self.device}, in {self.directory}"
