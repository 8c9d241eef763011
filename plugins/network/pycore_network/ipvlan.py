"""The driver ``ipvlan`` of networks: containers have addresses in the host's own network, and the hardware address of
the host's device, for switches and clouds that know one alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, hookimpl
from pycore.ops import Operation
from pycore.spec import App, Container, Section, Text, setting

from pycore_network import children

KIND = "ipvlan"


class Ipvlan(Section):
    """Where the devices of a network live, and how."""

    table: ClassVar[str] = "network.*"

    parent: Text = setting(doc="The host's device that they live on.", example="eth0")
    mode: Literal["l2", "l3", "l3s"] = setting(
        "l2",
        doc="Whether the device sends frames (`l2`), or packets, which the host's side routes (`l3`; with the host's "
        "netfilter `l3s`). With the latter two no gateway is needed: all is sent to the parent.",
        example="l2",
    )


@hookimpl
def pycore_driver() -> Driver:
    return Driver(
        "network",
        KIND,
        "A device with an address of its own, and the hardware address of one of the host's.",
        of=("network",),
    )


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Ipvlan]


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    return children.unfit(app, KIND)


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    return children.joined(container, host, KIND)


@hookimpl
def pycore_attach(container: Container, host: Host) -> Iterable[Operation]:
    return children.linked(container, host, KIND, mac=False)
