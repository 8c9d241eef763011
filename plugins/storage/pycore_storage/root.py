"""What a container's root is told in the spec, whichever driver makes it."""

from __future__ import annotations

from typing import ClassVar

from pycore.spec import Change, Section, setting


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
