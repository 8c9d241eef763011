"""``network connect`` and ``network disconnect``: the container's spec with other networks, as a live change."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from pycore.cli.session import Session
from pycore.errors import Conflict, SpecError, UsageError
from pycore.plan import container_of

from pycore_network.commands.using import find
from pycore_network.memberships import Networks
from pycore_network.networks import host_name

Source = Mapping[str, Any]


def connect(session: Session, arguments: argparse.Namespace) -> int:
    """Have a container in one more network."""
    find(session.engine.host(), arguments.network)
    how = {"aliases": arguments.alias, "addresses": [each for each in (arguments.ip, arguments.ip6) if each]}
    attachment = {key: value for key, value in how.items() if value}

    def edit(source: Source) -> Source:
        words = _words(session, arguments.container)
        if arguments.network in words.values():
            raise Conflict(f"{arguments.container} is in network {arguments.network} already")
        table = {"external": True, "name": arguments.network}
        word = _free_word(arguments.network, table, source)
        named = {**source.get("network", {}), word: table}
        return {**_with(source, {**_attachments(source), word: attachment}), "network": named}

    return _change(session, arguments, edit)


def disconnect(session: Session, arguments: argparse.Namespace) -> int:
    """Have a container in a network no more."""
    words = _words(session, arguments.container)
    if arguments.network not in words.values():
        if arguments.force:
            return 0
        raise Conflict(f"{arguments.container} is not in network {arguments.network}")

    def edit(source: Source) -> Source:
        left = {word: how for word, how in _attachments(source).items() if words.get(word) != arguments.network}
        if not left:
            raise Conflict(f"{arguments.network} is the only network of {arguments.container}")
        return _with(source, left)

    return _change(session, arguments, edit)


def _change(session: Session, arguments: argparse.Namespace, edit: Any) -> int:
    try:
        record = session.engine.change(arguments.container, edit)
    except SpecError as error:
        problem = error.problems[0]
        raise UsageError(problem.message, hint=problem.hint) from None
    session.show({"container": record.full_name, "network": arguments.network}, lambda: f"{record.full_name}\n")
    return 0


def _words(session: Session, name: str) -> dict[str, str]:
    """What a container calls its networks, and their names on the host. Raises NotFound, Conflict."""
    record = session.engine.find(name)
    container = container_of(record, session.engine.plugins)
    if Networks not in container:
        raise Conflict(f"{record.full_name} has the network driver {container.drivers['network']}, without networks")
    return {word: host_name(container.app, word) for word in container[Networks].attachments()}


def _free_word(name: str, table: Source, source: Source) -> str:
    """What the spec may call a network, whose own word for it may mean another here."""
    taken: dict[str, Any] = {"default": {}, **source.get("network", {})}
    word = name
    while taken.get(word, table) != table:
        word = f"{word}-"
    return word


def _attachments(source: Source) -> dict[str, Any]:
    """The networks of a spec of one container, as a table."""
    (table,) = source["container"].values()
    networks: Mapping[str, Any] | list[str] = table.get("network", {}).get("networks", ["default"])
    return {word: {} for word in networks} if isinstance(networks, list) else dict(networks)


def _with(source: Source, attachments: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with other networks: by their names, as one writes it where nothing else is said of them."""
    networks = dict(attachments) if any(attachments.values()) else list(attachments)
    ((name, table),) = source["container"].items()
    return {**source, "container": {name: {**table, "network": {**table.get("network", {}), "networks": networks}}}}
