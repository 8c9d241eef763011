"""Which of the host's ids a container in a user namespace of its own uses: known to whoever owns files for it."""

from __future__ import annotations

from collections.abc import Iterable
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

    def probe(self, ctx: Context) -> bool | None:
        try:
            maps = [ctx.kernel.read(f"/proc/{ctx.pid}/{name}").split() for name in ("uid_map", "gid_map")]
        except OSError:
            return False
        return all(found == ["0", str(self.first), str(self.count)] for found in maps)

    def explain(self) -> str:
        return f"map user and group ids 0-{self.count - 1} to {self.first}-{self.first + self.count - 1}"


def root_id(operations: Iterable[Operation]) -> int:
    """The host's user and group id that is root inside: 0 without a user namespace."""
    return ids(operations)[0]


def ids(operations: Iterable[Operation]) -> tuple[int, int]:
    """The first of the host's ids that a user namespace has, and how many: zeros without one."""
    found = (operation for operation in operations if isinstance(operation, MapIds))
    return next(((operation.first, operation.count) for operation in found), (0, 0))
