"""Verbs for images. They are found when somebody gives a command, and import what they need when it is theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pycore.hookspecs import hookimpl


@hookimpl
def pycore_commands() -> Sequence[Callable[[Any, Any], None]]:
    """In the order in which help lists them."""
    from pycore_images.commands import archives, logins, looking, making, moving, removing

    return looking.verbs, moving.verbs, archives.verbs, making.verbs, removing.verbs, logins.verbs
