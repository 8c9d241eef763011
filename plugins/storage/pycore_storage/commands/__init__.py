"""Verbs for volumes. They are found when somebody gives a command, and import what they need when it is theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pycore.hookspecs import hookimpl


@hookimpl
def pycore_commands() -> Sequence[Callable[[Any, Any], None]]:
    """The family ``volume``."""
    from pycore_storage.commands import volumes

    return (volumes.verbs,)
