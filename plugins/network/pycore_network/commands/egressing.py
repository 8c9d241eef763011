"""``network egress``: what a container may send to, and whom it has tried to reach besides."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from pycore.cli.session import Session

from pycore_network.egress.telling import Told


def egress(session: Session, arguments: argparse.Namespace) -> int:
    """Say it."""
    from pycore_network.egress.telling import tell

    record = session.engine.find(arguments.container)
    told = tell(session.engine.host(), record.operations("prepared"))
    value = {"container": record.full_name, **asdict(told)}
    session.show(value, lambda: "".join(f"{line}\n" for line in _lines(record.full_name, told)))
    return 0


def _lines(name: str, told: Told) -> Iterator[str]:
    if not told.bound:
        yield f"{name} may send to everybody"
        return
    yield f"{name} may send to{'' if told.allowed else ' nobody'}"
    width = max(map(len, told.allowed), default=0)
    yield from (f"  {words:{width}}  {' '.join(known)}".rstrip() for words, known in told.allowed.items())
    if told.denied:
        yield "within the last hour it was denied"
        yield from (f"  {words}" for words in told.denied)
