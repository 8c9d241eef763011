"""What keeps a container from taking the addresses of others."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network.elements import Element, of_device
from pycore_network.ops import kept, rules
from pycore_network.ops.lease import concerning


@dataclass(frozen=True)
class Guard(Operation):
    """Let pass what comes from a container's device under its own addresses, and nothing else.

    It is in force before the device is there, and stays through restarts.
    """

    step = Step.NETWORK
    device: str
    """The host's end."""
    mac: str
    addresses: tuple[str, ...]
    directory: str
    """Of the network."""
    table: str
    name: str
    """``APP/NAME``."""

    def depth(self) -> int:
        return 1  # the network makes the tables

    def do(self, ctx: Context) -> None:
        with ctx.kernel.locked(self._networks), concerning(self.device):
            kept.keep(ctx.kernel, self.directory, self.device, self.table, self.elements())
            rules.put(ctx.kernel, self.table, self.elements())

    def undo(self, ctx: Context) -> None:
        if not ctx.kernel.exists(self._networks):
            return
        with ctx.kernel.locked(self._networks), concerning(self.device):
            rules.withdraw(ctx.kernel, self.table, self.elements())
            kept.drop(ctx.kernel, self.directory, self.device)

    def elements(self) -> list[Element]:
        """What is put into the tables."""
        return of_device(self.device, self.mac, self.addresses, self.name)

    @property
    def _networks(self) -> str:
        return self.directory.rpartition("/")[0]

    def probe(self, ctx: Context) -> bool | None:
        is_kept = kept.is_kept(ctx.kernel, self.directory, self.device, self.table, self.elements())
        return is_kept and rules.in_force(ctx.kernel, self.table, self.elements())

    def explain(self) -> str:
        own = ", ".join((self.mac, *self.addresses))
        return f"guard {self.device}: nothing but frames of {own} passes; nft table bridge {self.table}"
