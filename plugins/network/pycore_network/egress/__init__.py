"""What a container may send to: everything else is refused (``egress``).

Addresses are allowed as the spec has them. Names are asked of the resolver alone, which refuses those that no entry
means; the addresses that it answers may be used for as long as the answer may be remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, ClassVar

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import Host, hookimpl
from pycore.ops import Operation
from pycore.spec import App, Change, Container, Many, Section, setting

from pycore_network.egress.boxes import Box, boxes
from pycore_network.egress.entries import EntryText, parse
from pycore_network.memberships import Membership, memberships
from pycore_network.networks import BRIDGE
from pycore_network.ops.egress import DIRECTORY, AllowName, AllowNetwork, Bind, Judge, all_in

_MOST_ENTRIES = 256
_MOST_BOXES = 4096
_PLACE = ("network", "egress")


class Egress(Section):
    """What a container may send to."""

    table: ClassVar[str] = "container.*.network"

    egress: Annotated[Many[EntryText], pydantic.Field(max_length=_MOST_ENTRIES)] | None = setting(
        None,
        doc="What it may send to, and nothing else: HOST:PORT[/udp], where HOST is a name, `*.` and a name for those "
        "below it, an address, a network or `*`, and PORT a port, a range or `*`. Names, also those of containers, may "
        "be asked for only where they stand here. What others begin it may answer. An empty list is nothing.",
        change=Change.LIVE,
        example=["example.org:443", "*.example.org:443", "10.0.0.0/8:*"],
        flags=("--egress",),
    )


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Egress]


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    for container in app.containers.values():
        driver = container.drivers.get("network")
        if _is_bound(container) and driver != BRIDGE:
            yield Problem(
                ("container", container.service, *_PLACE),
                f"egress is kept where the host has a hand in the network, which it has not with the driver {driver}",
                'leave `egress` out, or take networks of the driver "bridge"',
            )


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    if not _is_bound(container):
        return []
    everywhere = memberships(container, host)
    elsewhere = [each.network for each in everywhere if each.network.driver != BRIDGE]
    for network in elsewhere:
        message = (
            f"it is in {network.name}, a network of the driver {network.driver}, whose packets the host never sees"
        )
        host.problems.append(Problem(_PLACE, message, "leave `egress` out, or that network"))
    return [] if elsewhere else _operations(container, host, everywhere)


@hookimpl
def pycore_leftovers(host: Host, known: Collection[Operation]) -> Iterable[Operation]:
    """Files that no container has, with the elements that they tell of."""
    return [each for each in all_in(host.look, f"{host.run_dir}/{DIRECTORY}") if each not in known]


def _is_bound(container: Container) -> bool:
    return Egress in container and container[Egress].egress is not None


def _operations(container: Container, host: Host, everywhere: Sequence[Membership]) -> list[Operation]:
    """What is allowed comes first, and goes last: a change leaves no moment in which anything else could be sent."""
    entries = [parse(text) for text in container[Egress].egress or ()]
    allowed = boxes(entries)
    if len(allowed) > _MOST_BOXES:
        message = f"its entries overlap so that they make {len(allowed)} pieces; {_MOST_BOXES} is the most"
        host.problems.append(Problem(_PLACE, message, "leave out what others include"))
        return []
    named = dict.fromkeys((each.name, each.protocol, *each.ports) for each in entries if each.name)
    return [each for membership in everywhere for each in _in_network(container, host, membership, allowed, named)]


def _in_network(
    container: Container, host: Host, membership: Membership, allowed: Sequence[Box], named: Iterable[_Named]
) -> Iterator[Operation]:
    """Those of one network by themselves: another one that comes or goes leaves them as they are."""
    own = membership.addresses
    who = (f"{host.run_dir}/{DIRECTORY}", host.instance, container.id, container.full_name, own)
    versions = {":" in address for address in own}
    for each in allowed:
        if (":" in each.network) in versions:
            yield AllowNetwork(*who, each.network, each.protocol, each.first, each.last)
    for name, protocol, first, last in named:
        yield AllowName(*who, name, protocol, first, last)
    yield Bind(*who, membership.peer)
    yield Judge(host.instance, container.full_name, own, container[Egress].egress or ())


_Named = tuple[str, str, int, int]
"""Name, protocol, first and last port."""
