"""The driver ``none``: output is thrown away as it comes."""

from __future__ import annotations

from pycore.hookspecs import Driver, Host, hookimpl
from pycore.logs import Log, NoLog
from pycore.spec import Container


@hookimpl
def pycore_driver() -> Driver:
    """Chosen with ``driver = "none"``."""
    return Driver("logging", "none", "Output is thrown away.")


@hookimpl
def pycore_log(container: Container, host: Host) -> Log:
    """Nothing, with the reason for who asks."""
    return NoLog(
        f'{container.full_name} has driver = "none" in [container.{container.name}.logging]',
        hint="pycore attach shows what comes from now on",
    )
