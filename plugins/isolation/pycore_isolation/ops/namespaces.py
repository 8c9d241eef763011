"""What is done to namespaces once the process is in them."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class Hostname(Operation):
    """Name the container in its UTS namespace."""

    step = Step.IDENTITY
    name: str

    def do(self, ctx: Context) -> None:
        ctx.kernel.set_hostname(self.name)

    def explain(self) -> str:
        return f"host name {self.name}"
