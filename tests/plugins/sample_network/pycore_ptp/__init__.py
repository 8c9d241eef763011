"""A network driver: one cable between the container and the host, with an address at either end."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pycore
import pydantic
from pycore.launch.namespaces import Namespaces

from pycore_ptp.operations import Addresses, Cable


class Ptp(pycore.Section):
    """What the driver adds to the container's network table."""

    table = "container.*.network"

    address: str = pycore.setting(doc="The container's IPv4 address.", change=pycore.Change.LIVE)
    gateway: str = pycore.setting(doc="The host's address on the cable.", change=pycore.Change.LIVE)

    @pydantic.field_validator("address", "gateway")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return str(IPv4Address(value))


@pycore.hookimpl
def pycore_driver() -> pycore.Driver:
    return pycore.Driver("network", "ptp", "A cable between the container and the host.")


@pycore.hookimpl
def pycore_sections() -> list[type[pycore.Section]]:
    return [Ptp]


@pycore.hookimpl
def pycore_launch() -> list[pycore.Operation]:
    return [Namespaces(("network",))]


@pycore.hookimpl
def pycore_attach(container: pycore.Container) -> list[pycore.Operation]:
    ptp, link = container[Ptp], f"ptp{container.id[:8]}"
    return [Cable(link), Addresses(link, ptp.gateway, ptp.address)]


@pycore.hookimpl
def pycore_inspect(container: pycore.Container) -> dict[str, Any]:
    return {"address": container[Ptp].address}
