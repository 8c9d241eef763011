"""The powers a container keeps: ``cap_add``, ``cap_drop``, ``no_new_privileges``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import pydantic
from pycore.hookspecs import Host, Requirement, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Change, Container, Many, Section, setting

from pycore_isolation.namespaces import has_user_namespace
from pycore_isolation.ops.capabilities import NAMES, Bounding, Capabilities, NoNewPrivileges, mask, names

DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW",
    "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP",
)  # fmt: skip
"""Docker's fourteen: what a root inside needs to install packages, change users and serve on low ports."""

ALL = "ALL"


def _name(value: str) -> str:
    name = value.upper().removeprefix("CAP_")
    if name != ALL and name not in NAMES:
        raise ValueError(f"no such capability: {value!r}{_suggestion(name)}")
    return name


def _suggestion(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, NAMES, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


Capability = Annotated[
    str, pydantic.AfterValidator(_name), pydantic.WithJsonSchema({"type": "string", "enum": [ALL, *NAMES]})
]
"""A capability's name, with or without ``CAP_``; kept without."""


class Privileges(Section):
    """``cap_add``, ``cap_drop``, ``no_new_privileges``."""

    table = "container.*.isolation"

    cap_add: Many[Capability] = setting(
        (),
        doc=f"Capabilities to have beside the default ones ({', '.join(DEFAULT)}), or ALL.",
        change=Change.RESTART,
        example=["NET_ADMIN"],
        flags=("--cap-add",),
        privileged=[ALL],
    )
    cap_drop: Many[Capability] = setting(
        (),
        doc="Capabilities not to have, or ALL; what cap_add names is kept all the same.",
        change=Change.RESTART,
        example=["ALL"],
        flags=("--cap-drop",),
        privileged=[],
    )
    no_new_privileges: bool = setting(
        True,
        doc="Whether set-user-id programs and file capabilities give nothing (PR_SET_NO_NEW_PRIVS).",
        change=Change.RESTART,
        flags=("--no-new-privileges",),
        privileged=False,
    )

    def granted(self) -> int:
        """The capabilities wanted, as a bit mask: Docker's rule, by which a name counts more than ALL."""
        everything = mask(NAMES)
        wanted = everything if ALL in self.cap_add else 0 if ALL in self.cap_drop else mask(DEFAULT)
        wanted &= ~mask(name for name in set(self.cap_drop) if name != ALL)
        return wanted | mask(name for name in set(self.cap_add) if name != ALL)


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """``cap_add``, ``cap_drop``, ``no_new_privileges``."""
    return [Privileges]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """The default capabilities, of which a container gets no more than the caller has."""
    missing = mask(DEFAULT) & ~look.capabilities()
    yield Requirement(
        "the capabilities that containers have by default",
        met=not missing,
        why=f"containers go without {', '.join(names(missing))}",
        mend="run pycore as root, outside any container",
    )


@hookimpl
def pycore_confine(container: Container, host: Host) -> Iterator[Operation]:
    """Lower the bounding set, keep what is granted, and close the way to more.

    What the caller itself lacks cannot be given; in a user namespace of its own the process has them all,
    over what belongs to that namespace.
    """
    keep = container[Privileges].granted()
    if not has_user_namespace(container):
        keep &= host.look.capabilities()
    yield Bounding(keep, _last(host.look))
    yield Capabilities(keep)
    if container[Privileges].no_new_privileges:
        yield NoNewPrivileges()


def _last(look: Look) -> int:
    try:
        return int(look.read("/proc/sys/kernel/cap_last_cap"))
    except (OSError, ValueError):
        return len(NAMES) - 1
