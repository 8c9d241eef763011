"""The loopback device of a network namespace."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class Loopback(Operation):
    """Bring ``lo`` up in the container's network namespace; nothing else is in it."""

    step = Step.LINK

    def do(self, ctx: Context) -> None:
        from pycore_network import links

        ctx.kernel.netlink([links.bring_up(links.LOOPBACK_INDEX)], ctx.pid)

    def explain(self) -> str:
        return "link lo up"
