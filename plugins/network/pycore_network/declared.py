"""``[network.NAME]`` tables, whichever driver they choose: what is wrong with them, and with who refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from pycore.errors import Problem
from pycore.hookspecs import hookimpl
from pycore.spec import App, Container, Section

from pycore_network.memberships import Networks
from pycore_network.networks import DEFAULT, NetworkTable, host_name, read_subnet, table_of

_SAID_ELSEWHERE = ("subnets", "gateways", "internal", "ipv6", "mtu", "isolated", "labels")
RUN = "run"
"""The network of containers of ``pycore run``, as Docker's are in its default bridge."""


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [NetworkTable]


@hookimpl
def pycore_run(source: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    """Networks that ``run --network`` names are there already; without, all such containers are in one."""
    table = source["container"][name].get("network", {})
    if table.get("driver", "bridge") != "bridge":
        return {}
    words: Iterable[str] = table.get("networks", (DEFAULT,))
    return {"network": {word: {"name": RUN} if word == DEFAULT else {"external": True} for word in words}}


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    yield from _unfit_tables(app)
    yield from _unknown_networks(app)
    yield from _addresses_twice(app)
    yield from _networks_twice(app)


def _unfit_tables(app: App) -> Iterator[Problem]:
    for word in app.tables.get("network", {}):
        table, path = table_of(app, word), ("network", word)
        if table.external:
            said = [name for name in _SAID_ELSEWHERE if name in table.model_fields_set]
            yield from (
                Problem((*path, name), f"{name} is said where an external network is made, not here") for name in said
            )
        if not table.ipv6 and any(":" in text for text in table.subnets):
            yield Problem((*path, "ipv6"), "ipv6 is false, and `subnets` has one of IPv6")
        yield from _unfit_gateways(table, path)


def _unfit_gateways(table: NetworkTable, path: tuple[str, str]) -> Iterator[Problem]:
    subnets = [read_subnet(text) for text in table.subnets]
    for index, gateway in enumerate(table.gateways):
        if not any(ip_address(gateway) in subnet for subnet in subnets):
            yield Problem((*path, "gateways", index), f"{gateway} is in none of its `subnets`")


def _unknown_networks(app: App) -> Iterator[Problem]:
    declared = app.tables.get("network", {})
    for container in _in_networks(app):
        for index, word in enumerate(container[Networks].attachments()):
            if word not in declared and word != DEFAULT:
                hint = f"add a table [network.{word}]"
                yield Problem(_place(container, index, word), f"no network {word!r} is declared", hint)


def _addresses_twice(app: App) -> Iterator[Problem]:
    """An address that two containers name, and any of a container with replicas, which would all have it."""
    holders: dict[tuple[str, str], str] = {}
    for container in _in_networks(app):
        for word, attachment in container[Networks].attachments().items():
            for what in (*attachment.addresses, *((attachment.mac,) if attachment.mac else ())):
                holder = holders.setdefault((host_name(app, word), what), container.name)
                if holder != container.name:
                    path = ("container", container.service, "network", "networks", word)
                    yield Problem(path, f"{what} is the address of container {holder!r} already")


def _networks_twice(app: App) -> Iterator[Problem]:
    """One network of the host by two names: a container is in it once."""
    for container in _in_networks(app):
        words: dict[str, str] = {}
        for index, word in enumerate(container[Networks].attachments()):
            before = words.setdefault(host_name(app, word), word)
            if before != word:
                message = f"[network.{before}] and [network.{word}] are the same network, {host_name(app, word)!r}"
                yield Problem(_place(container, index, word), message)


def _place(container: Container, index: int, word: str) -> tuple[str | int, ...]:
    """Where a container names a network: in an array, or as a key."""
    place = ("container", container.service, "network", "networks")
    return (*place, index) if isinstance(container[Networks].networks, tuple) else (*place, word)


def _in_networks(app: App) -> Iterator[Container]:
    return (container for container in app.containers.values() if Networks in container)
