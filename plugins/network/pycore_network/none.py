"""The driver ``none``: a network namespace with nothing in it but loopback."""

from __future__ import annotations

from collections.abc import Iterable

from pycore.hookspecs import Driver, Host, hookimpl
from pycore.launch.namespaces import Namespaces
from pycore.ops import Operation
from pycore.spec import Container

from pycore_network.ops.loopback import Loopback


@hookimpl
def pycore_driver() -> Driver:
    return Driver("network", "none", "No network but the container's own loopback.")


@hookimpl
def pycore_launch(container: Container, host: Host) -> Iterable[Operation]:
    return [Namespaces(("network",))]


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterable[Operation]:
    return [Loopback()]
