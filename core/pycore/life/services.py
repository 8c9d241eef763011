"""What plugins do beside containers, for as long as there is an engine: a resolver of names, a watch over rules."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

from pycore.errors import PycoreError
from pycore.hookspecs import Service


class Services:
    """The services of one engine. What one of them cannot do is told, and keeps nobody from anything else."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services

    def changed(self) -> None:
        """Operations have been done or taken back on the host: have each service look whether that concerns it."""
        for service in self._services:
            _try(service.changed)

    def close(self) -> None:
        """Let go of all; nobody is told of any change from here on."""
        services, self._services = self._services, ()
        for service in services:
            _try(service.close)


def _try(act: Callable[[], None]) -> None:
    try:
        act()
    except PycoreError as error:
        sys.stderr.write(f"pycore: {error.message}\n")
    except Exception:  # third-party code, in the middle of somebody's apply
        traceback.print_exc()
