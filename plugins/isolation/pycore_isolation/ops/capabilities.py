"""Capabilities given up, and no new ones to be had (capabilities(7))."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""Each at the index that is its number in linux/capability.h."""

_BITS = {name: 1 << number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> int:
    """The capabilities as a bit mask."""
    return sum(_BITS[name] for name in set(names))


def names(capabilities: int) -> list[str]:
    """The names in a bit mask, in the kernel's order; those newer than :data:`NAMES` are left out."""
    return [name for number, name in enumerate(NAMES) if capabilities >> number & 1]


def _words(capabilities: int) -> str:
    return ", ".join(names(capabilities)).lower() or "none"


@dataclass(frozen=True)
class Bounding(Operation):
    """Lower the bounding set: no program can gain more than this, whatever its file says or its user is."""

    step = Step.BOUNDING
    keep: int
    last: int
    """The highest capability that the kernel knows; /proc/sys/kernel/cap_last_cap."""

    def do(self, ctx: Context) -> None:
        for capability in range(self.last + 1):
            if not self.keep >> capability & 1:
                ctx.kernel.drop_bounding(capability)

    def explain(self) -> str:
        return f"bound capabilities to: {_words(self.keep)}"


@dataclass(frozen=True)
class Capabilities(Operation):
    """Keep these capabilities, permitted and effective, if root; nothing inheritable, nothing ambient.

    For any other user the kernel has cleared both sets when the user changed, and nothing brings them back.
    """

    step = Step.CAPABILITY
    keep: int

    def do(self, ctx: Context) -> None:
        keep = self.keep if ctx.kernel.euid() == 0 else 0
        ctx.kernel.set_ambient(())
        ctx.kernel.set_capabilities(keep, keep, 0)

    def explain(self) -> str:
        return f"keep, if root, capabilities: {_words(self.keep)}"


@dataclass(frozen=True)
class NoNewPrivileges(Operation):
    """From here on no program gains powers by set-user-id or file capabilities (PR_SET_NO_NEW_PRIVS)."""

    step = Step.NO_NEW_PRIVS

    def do(self, ctx: Context) -> None:
        ctx.kernel.set_no_new_privs()

    def explain(self) -> str:
        return "no new privileges"
