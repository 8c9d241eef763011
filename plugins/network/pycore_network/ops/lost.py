"""What a network has left on the host that no container has any more: described only to be taken back."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network import ruleset


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
    """An element of a set or a map of the nftables table."""

    step = Step.NETWORK
    table: str
    name: str
    key: str

    def undo(self, ctx: Context) -> None:
        with contextlib.suppress(FileNotFoundError):
            ctx.kernel.nft(ruleset.delete_element(self.table, self.name, self.key))

    def explain(self) -> str:
        return f"element {self.key} of {self.name} in nft table inet {self.table}"


@dataclass(frozen=True)
class LostTable(Operation):
    """The nftables table, where no network is left that it could serve."""

    step = Step.NETWORK
    table: str

    def undo(self, ctx: Context) -> None:
        with contextlib.suppress(FileNotFoundError):
            ctx.kernel.nft(ruleset.delete(self.table))

    def explain(self) -> str:
        return f"nft table inet {self.table}"
