"""``network explain``: which rules let packets to a port in, or not, and from where."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from pycore.cli.session import Session
from pycore.errors import UsageError

from pycore_network.explain import Explained
from pycore_network.ports import PROTOCOLS


def explain(session: Session, arguments: argparse.Namespace) -> int:
    """Say it."""
    from pycore_network.explain import explain as explained

    number, protocol = port_of(arguments.port)
    made = [
        (record.full_name, [*record.operations("prepared"), *record.operations("attached")])
        for record in session.engine.containers()
    ]
    found = explained(session.engine.host(), protocol, number, made)
    rows = [asdict(each) | {"port": number, "protocol": protocol} for each in found]
    session.show(rows, lambda: "".join(f"{line}\n" for each in found for line in _lines(each, arguments.port)))
    return 0


def _lines(explained: Explained, port: str) -> Iterator[str]:
    yield f"{port} {explained.what}"
    width = max((len(each.source) for each in explained.answers), default=0)
    for each in explained.answers:
        yield f"  from {each.source:{width}}  IPv{each.version}  {each.fate:8} {each.why}"
    yield from (f"  {note}" for note in explained.notes)


def port_of(text: str) -> tuple[int, str]:
    """``8080`` or ``53/udp`` as a number and a protocol. Raises UsageError."""
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if not (number.isascii() and number.isdigit() and 1 <= int(number[:6]) <= 65535) or protocol not in PROTOCOLS:
        raise UsageError(f"{text!r} is no port", hint="a port is written 8080, or 53/udp")
    return int(number), protocol
