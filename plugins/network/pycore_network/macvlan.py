"""The driver ``macvlan`` of networks: containers are neighbours of the host in its own network, each with a hardware
address of its own. The kernel keeps the host itself and such devices from each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, hookimpl
from pycore.ops import Operation
from pycore.spec import App, Container, Section, Text, setting

from pycore_network import children

KIND = "macvlan"


class Macvlan(Section):
    """Where the devices of a network live, and how."""

    table: ClassVar[str] = "network.*"

    parent: Text = setting(doc="The host's device that they live on.", example="eth0")
    mode: Literal["bridge", "private", "vepa", "passthru"] = setting(
        "bridge",
        doc="What such devices on one parent are to each other: neighbours (`bridge`), strangers (`private`), or "
        "neighbours by way of a switch that sends back (`vepa`); or one has the parent to itself (`passthru`).",
        example="bridge",
    )


@hookimpl
def pycore_driver() -> Driver:
    return Driver(
        "network",
        KIND,
        "A device with a hardware address of its own on one of the host's: a neighbour of the host.",
        of=("network",),
    )


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Macvlan]


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    return children.unfit(app, KIND)


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    return children.joined(container, host, KIND)


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterable[Operation]:
    return children.linked(container, host, KIND, mac=True)
