"""The container's way out: its default route."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

_GONE = (errno.ESRCH, errno.ENODEV, errno.ENOENT)
"""What the kernel says of a route or a process that is not there any more."""


@dataclass(frozen=True)
class DefaultRoute(Operation):
    """Whatever has no better way leaves through a device, by the gateways of its network."""

    step = Step.LINK
    device: str
    gateways: tuple[str, ...]

    def depth(self) -> int:
        return 1  # after the devices

    def do(self, ctx: Context) -> None:
        from pycore_network import links

        index = links.index_of(self.device)
        ctx.kernel.netlink([links.default_route(gateway, index) for gateway in self.gateways], ctx.pid)

    def undo(self, ctx: Context) -> None:
        """With the process it goes by itself."""
        if not ctx.pid:
            return
        from pycore_network import links

        index = links.index_of(self.device)
        for gateway in self.gateways:
            try:
                ctx.kernel.netlink([links.delete_default_route(gateway, index)], ctx.pid)
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def probe(self, ctx: Context) -> bool | None:
        if not ctx.pid:
            return None
        try:
            return ctx.kernel.gateways(ctx.pid) >= set(self.gateways)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise

    def explain(self) -> str:
        return f"default route of the container via {' and '.join(self.gateways)}, {self.device}"
