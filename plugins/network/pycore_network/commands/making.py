"""``network create``, ``network rm`` and ``network prune``: networks that stay when nobody is in them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pycore.cli.session import Session
from pycore.errors import Conflict, SpecError, UsageError
from pycore.hookspecs import Host
from pycore.source.load import load_source
from pycore.spec import NAME_PATTERN, App

from pycore_network.commands.using import find, users
from pycore_network.finding import find_network
from pycore_network.networks import all_recorded, kept_record, recorded

_DOCKERS = {
    "com.docker.network.driver.mtu": "mtu",
    "macvlan_mode": "mode",
    "ipvlan_mode": "mode",
}
"""What Docker calls options that have another word here."""


def create(session: Session, arguments: argparse.Namespace) -> int:
    """Make one. What it is on the host comes with the first container."""
    engine, name = session.engine, arguments.name
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"{name!r} cannot be a name")
    try:
        app = _app(session, name, _table(arguments))
    except SpecError as error:
        problem = error.problems[0]
        raise UsageError(problem.message, hint=problem.hint) from None
    engine.open()
    with engine.undisturbed():
        host = engine.host()
        if recorded(host, name):
            raise Conflict(f"there is a network {name} already", hint=f"pycore network inspect {name}")
        network = find_network(host, app, name)
        if host.problems:
            raise Conflict(host.problems[0].message, hint=host.problems[0].hint)
        engine.kernel.mkdir(f"{host.data_dir}/networks")
        engine.kernel.replace(kept_record(host, name), network.record())
    session.show({"name": name, "subnets": [str(subnet) for subnet in network.subnets]}, lambda: f"{name}\n")
    return 0


def _table(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags as ``[network.NAME]`` would have them."""
    options = {_DOCKERS.get(key, key): value for key, value in map(_pair, arguments.opt)}
    table: dict[str, Any] = {"driver": arguments.driver, "name": arguments.name, **options}
    if "isolated" in table:
        table["isolated"] = {"true": True, "false": False}.get(table["isolated"], table["isolated"])
    if str(table.get("mtu", "")).isdigit():
        table["mtu"] = int(table["mtu"])
    said = {
        "subnets": arguments.subnet,
        "gateways": arguments.gateway,
        "internal": arguments.internal or None,
        "ipv6": arguments.ipv6,
        "labels": dict(map(_pair, arguments.label)),
    }
    return table | {key: value for key, value in said.items() if value not in (None, [], {})}


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise UsageError(f"{text!r} must be KEY=VALUE")
    return key, value


def _app(session: Session, name: str, table: dict[str, Any]) -> App:
    """An app that has such a network, to be checked like any."""
    container = {"image": "host", "command": ["true"], "network": {"networks": [name]}}
    source = {"name": "network", "container": {"nobody": container}, "network": {name: table}}
    return load_source(source, directory=Path("/"), plugins=session.engine.plugins)


def remove(session: Session, arguments: argparse.Namespace) -> int:
    """Remove some."""
    engine = session.engine
    engine.open()
    removed: list[str] = []
    with engine.undisturbed():
        host, by = engine.host(), users(engine)
        for name in arguments.names:
            _refuse(host, name, [container.full_name for container in by.get(name, ())], force=arguments.force)
        for name in arguments.names:
            if host.look.exists(kept_record(host, name)):
                engine.kernel.unlink(kept_record(host, name))
                removed.append(name)
    session.show(removed, lambda: "".join(f"{name}\n" for name in removed))
    return 0


def _refuse(host: Host, name: str, used: Iterable[str], *, force: bool) -> None:
    """Raises Conflict, NotFound."""
    if names := ", ".join(sorted(used)):
        raise Conflict(f"network {name} is used by {names}", hint=f"pycore network disconnect {name} CONTAINER")
    if host.look.exists(kept_record(host, name)):
        return
    if recorded(host, name):
        raise Conflict(f"network {name} is an app's own, and goes with its containers")
    if not force:
        find(host, name)


def prune(session: Session, arguments: argparse.Namespace) -> int:
    """Those that nobody is in."""
    engine = session.engine
    engine.open()
    with engine.undisturbed():
        host, by = engine.host(), users(engine)
        names = [each.name for each in all_recorded(host) if host.look.exists(kept_record(host, each.name))]
        unused = [name for name in names if not by.get(name)]
        for name in unused if arguments.force else ():
            engine.kernel.unlink(kept_record(host, name))
    what = {"removed" if arguments.force else "unused": unused}
    last = () if arguments.force or not unused else ("nothing is removed without --force",)
    session.show(what, lambda: "".join(f"{line}\n" for line in (*unused, *last)))
    return 0
