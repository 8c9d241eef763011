"""``network ls`` and ``network inspect``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from pycore.cli.names import has_label
from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.errors import UsageError
from pycore.hookspecs import Host

from pycore_network.commands.using import find, place_of, users
from pycore_network.networks import Network, all_recorded, kept_record

_COLUMNS = (Column("NETWORK"), Column("DRIVER"), Column("SUBNETS"), Column("USED BY", shrinks=True))
_KEYS = ("name", "driver", "label", "dangling", "internal")


def listing(session: Session, arguments: argparse.Namespace) -> int:
    """What there is."""
    host, by = session.engine.host(), users(session.engine)
    names = {name: sorted(container.full_name for container in found) for name, found in by.items()}
    wanted = [_filter(word, names) for word in arguments.filter]
    found = [each for each in all_recorded(host) if all(fits(each) for fits in wanted)]
    session.json = session.json or arguments.format == "json"
    if arguments.quiet:
        session.show([each.name for each in found], lambda: "".join(f"{each.name}\n" for each in found))
        return 0

    def cells() -> list[tuple[Cell, ...]]:
        return [
            (
                Cell(each.name, "bold"), Cell(each.driver), Cell(" ".join(map(str, each.subnets))),
                Cell(", ".join(names.get(each.name, ()))),
            )
            for each in found
        ]  # fmt: skip

    rows = [_row(host, each) | {"used_by": names.get(each.name, [])} for each in found]
    session.table(rows, _COLUMNS, cells, plain=arguments.no_trunc)
    return 0


def inspect(session: Session, arguments: argparse.Namespace) -> int:
    """All about some of them."""
    host, by = session.engine.host(), users(session.engine)
    found = [find(host, name) for name in arguments.names]
    session.print_json(
        [
            _row(host, each)
            | {
                "containers": {
                    container.full_name: place_of(host, each.name, container) for container in by.get(each.name, ())
                }
            }
            for each in found
        ]
    )
    return 0


def _row(host: Host, network: Network) -> dict[str, object]:
    return {
        "name": network.name,
        "driver": network.driver,
        "subnets": [str(subnet) for subnet in network.subnets],
        "gateways": list(network.gateways),
        "bridge": network.bridge,
        "internal": network.internal,
        "isolated": network.isolated,
        "mtu": network.mtu,
        "labels": dict(network.labels),
        "options": dict(network.options),
        "kept": host.look.exists(kept_record(host, network.name)),
    }


def _filter(word: str, used: Mapping[str, Sequence[str]]) -> Callable[[Network], bool]:
    """What ``--filter KEY=VALUE`` asks of a network. Raises UsageError."""
    key, equals, value = word.partition("=")
    if not equals or key not in _KEYS:
        raise UsageError(f"--filter {word}: must be KEY=VALUE, with one of {', '.join(_KEYS)}")
    if key in ("dangling", "internal") and value not in ("true", "false", "1", "0"):
        raise UsageError(f"--filter {word}: must be true or false")
    yes = value in ("true", "1")
    fits: dict[str, Callable[[Network], bool]] = {
        "name": lambda network: value in network.name,
        "driver": lambda network: network.driver == value,
        "label": lambda network: has_label(network.labels, value),
        "dangling": lambda network: bool(used.get(network.name)) != yes,
        "internal": lambda network: network.internal == yes,
    }
    return fits[key]
