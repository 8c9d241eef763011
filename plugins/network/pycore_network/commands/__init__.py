"""Verbs for networks. They are found when somebody gives a command, and import what they need when it is theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pycore.hookspecs import hookimpl


@hookimpl
def pycore_commands() -> Sequence[Callable[[Any, Any], None]]:
    """The family ``network``, also called ``net``, and ``port``."""
    from pycore_network.commands import networks

    return (networks.verbs,)
