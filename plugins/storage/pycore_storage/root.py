"""What a container's root is told in the spec, whichever driver makes it."""

from __future__ import annotations

from typing import ClassVar

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.spec import Change, Container, Section, Size, parse_size, setting


class Root(Section):
    """Fields that both drivers have."""

    table: ClassVar[str] = "container.*.storage"

    read_only: bool = setting(
        False,
        doc="Whether the root file system is read-only; volumes and tmpfs below it are not touched by this.",
        change=Change.RESTART,
        example=True,
        flags=("--read-only",),
    )
    size: Size | None = setting(
        None,
        doc="What the container may write in its root, volumes not counted. The file system of the data dir must have "
        "project quotas: ext4 and xfs mounted with `prjquota`. Left out, the disk is the limit.",
        change=Change.LIVE,
        example="10G",
        flags=("--storage-size",),
    )

    @property
    def bytes(self) -> int:
        """``size`` in bytes; 0 for no limit."""
        return parse_size(self.size) if self.size else 0


class VolatileRoot(Root):
    """And what overlayfs has besides."""

    volatile: bool = setting(
        False,
        doc="Whether the writable layer is never forced to the disk: fsync(2) in the container costs nothing. After a "
        "crash or a boot of the host the container starts with an empty layer; a restart of the container keeps it.",
        change=Change.RESTART,
        example=True,
    )


def lacks_quota(container: Container, host: Host) -> Problem | None:
    """What keeps a limit from being kept on this host's disk, if there is one."""
    root = next(section for section in container if isinstance(section, Root))
    if not root.bytes or host.look.has_quota(str(host.data_dir)):
        return None
    return Problem(
        ("storage", "size"),
        f"the file system of {host.data_dir} has no project quotas",
        hint="ext4: tune2fs -O project,quota, then mount with prjquota; xfs: mount with prjquota",
    )
