"""The operations of the launch phase: which namespaces the process is cloned into."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, Operation
from pycore.steps import Step

FLAGS = {
    "mount": libc.CLONE_NEWNS,
    "pid": libc.CLONE_NEWPID,
    "uts": libc.CLONE_NEWUTS,
    "ipc": libc.CLONE_NEWIPC,
    "network": libc.CLONE_NEWNET,
    "user": libc.CLONE_NEWUSER,
}
"""OCI's words for the namespaces that clone3(2) makes. The cgroup namespace is not here: its root is the
cgroup the process is in when it is made, so it is unshared later, inside."""


@dataclass(frozen=True)
class Namespaces(Operation):
    """Clone the process into new namespaces; several plugins may each ask for some."""

    step = Step.NAMESPACES
    kinds: tuple[str, ...]

    def do(self, ctx: Context) -> None:
        """Nothing: the spawner reads ``kinds`` when it clones."""

    def explain(self) -> str:
        return f"clone into new namespaces: {', '.join(self.kinds)}"


@dataclass(frozen=True)
class NetworkOf(Operation):
    """Clone the process into the network namespace of another container, which runs by then."""

    step = Step.NAMESPACES
    container: str
    """``APP/NAME``."""

    def do(self, ctx: Context) -> None:
        """Nothing: whoever asks the spawner for the process tells it which namespace that is."""

    def explain(self) -> str:
        return f"clone into the network namespace of {self.container}"


def network_of(operations: tuple[Operation, ...]) -> str:
    """The container, as ``APP/NAME``, whose network namespace is shared; empty for one of its own."""
    return next((each.container for each in operations if isinstance(each, NetworkOf)), "")


def clone_flags(operations: tuple[Operation, ...]) -> int:
    """The CLONE_NEW* flags that all launch operations ask for together."""
    flags = 0
    for operation in operations:
        if isinstance(operation, Namespaces):
            for kind in operation.kinds:
                flags |= FLAGS[kind]
    return flags
