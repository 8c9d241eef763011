"""Namespaces of its own for every container, its host name, and a user namespace on request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import Host, Requirement, hookimpl
from pycore.launch.idmap import MapIds
from pycore.launch.namespaces import Namespaces
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Container, Section, setting

from pycore_isolation.ops.namespaces import Hostname

RANGE = 1 << 16
"""Ids of an automatic range: what a distribution's files can belong to."""

FIRST_RANGE, LAST_RANGE = 8, 0x6FFF
"""The ranges, in units of :data:`RANGE`, that systemd keeps free for containers (its UIDS-GIDS.md)."""

_MAX_ID = (1 << 32) - 2


def _mappable(value: str) -> str:
    first, _, count = value.partition(":")
    if count and (int(first) == 0 or int(count) == 0 or int(first) + int(count) - 1 > _MAX_ID):
        raise ValueError(f"must be a range of ids of the host between 1 and {_MAX_ID}")
    return value


UserNamespace = Annotated[
    str,
    pydantic.StringConstraints(pattern=r"^(host|auto|[0-9]{1,10}:[0-9]{1,10})$"),
    pydantic.AfterValidator(_mappable),
]
HostName = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")]


class Names(Section):
    """``hostname``, ``userns``."""

    table = "container.*.isolation"

    hostname: HostName | None = setting(
        None,
        doc="The host name inside; by default the container's name.",
        example="web",
        flags=("--hostname",),
    )
    userns: UserNamespace = setting(
        "host",
        doc='Whose user ids the container has: "host" means the host\'s, so that root inside is root outside, held '
        'back by the rest of this table; "auto" gives each app 65536 ids of its own, the same ones every time; '
        '"FIRST:COUNT" names them.',
        example="auto",
        flags=("--userns",),
    )


def has_user_namespace(container: Container) -> bool:
    """Whether the container's user ids are not the host's."""
    return Names in container and container[Names].userns != "host"


def id_range(container: Container) -> tuple[int, int]:
    """(first id on the host, how many). An automatic range is the app's: its containers share volumes.

    It follows from the app's name alone, so that what was written under it is still owned by it after a
    restart, on this host or another; two apps in one range, one in 28664 pairs, only share what Docker's
    containers all share.
    """
    first, _, count = container[Names].userns.partition(":")
    if count:
        return int(first), int(count)
    digest = hashlib.sha256(container.app.name.encode()).digest()
    choice = int.from_bytes(digest[:8], "big") % (LAST_RANGE - FIRST_RANGE + 1)
    return (FIRST_RANGE + choice) * RANGE, RANGE


def default_hostname(name: str) -> str:
    """A container's name as a host name: letters, digits, dots and inner hyphens (hostname(7))."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:63]


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """``hostname``, ``userns``."""
    return [Names]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """User namespaces, which some hosts forbid."""
    try:
        allowed = int(look.read("/proc/sys/user/max_user_namespaces")) > 0
    except (OSError, ValueError):
        allowed = False
    yield Requirement(
        "user namespaces", met=allowed, why='userns = "auto"', mend="sysctl -w user.max_user_namespaces=15000"
    )
    if look.in_user_namespace():
        yield Requirement(
            "ids for users in containers (newuidmap, /etc/subuid, /etc/subgid)",
            met=sum(count for _, count in look.id_ranges()) > 1,
            why="root is the only user that containers have",
            mend="apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        )


@hookimpl
def pycore_launch(container: Container, host: Host) -> Iterator[Operation]:
    """Mounts, processes, names and System V objects of its own; the network is its driver's matter."""
    user = ("user",) if has_user_namespace(container) else ()
    yield Namespaces((*user, "mount", "pid", "uts", "ipc"))


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterator[Operation]:
    """The ids of the user namespace."""
    if not has_user_namespace(container):
        return
    first, count = id_range(container)
    if not any(start <= first and first + count <= start + length for start, length in host.look.id_ranges()):
        host.problems.append(
            Problem(
                ("isolation", "userns"),
                f"ids {first} to {first + count - 1} are not among those that this user has",
                hint="leave `userns` out: a normal user's containers are all in a user namespace of that user's",
            )
        )
    yield MapIds(first, count)


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """The host name."""
    yield Hostname(container[Names].hostname or default_hostname(container.name))
