"""What is done to namespaces once the process is in them: id maps, the host name."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class MapIds(Operation):
    """Give the process's user namespace its ids: 0 to ``count - 1`` inside are ``first`` and up on the host."""

    step = Step.IDMAP
    first: int
    count: int

    def do(self, ctx: Context) -> None:
        """Write both maps; written by the host's root they need no newuidmap (user_namespaces(7))."""
        for name in ("uid_map", "gid_map"):
            ctx.kernel.write(f"/proc/{ctx.pid}/{name}", f"0 {self.first} {self.count}\n")

    def explain(self) -> str:
        return f"map user and group ids 0-{self.count - 1} to {self.first}-{self.first + self.count - 1}"


@dataclass(frozen=True)
class Hostname(Operation):
    """Name the container in its UTS namespace."""

    step = Step.IDENTITY
    name: str

    def do(self, ctx: Context) -> None:
        ctx.kernel.set_hostname(self.name)

    def explain(self) -> str:
        return f"host name {self.name}"
