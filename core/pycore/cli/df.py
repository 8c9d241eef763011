"""The verb df: what is kept in the data dir takes, and what of it could be had back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pycore.cli.parser import Verb
from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.cli.text import size
from pycore.engine import Engine
from pycore.hookspecs import DiskUse

_COLUMNS = (
    Column("WHAT"), Column("TOTAL", right=True), Column("IN USE", right=True), Column("SIZE", right=True),
    Column("RECLAIMABLE", right=True),
)  # fmt: skip


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    verb("df", _df, "say what containers, images and volumes take on the disk, and what could be had back")


def _df(session: Session, arguments: argparse.Namespace) -> int:
    uses = session.engine.disk()
    session.table([vars(use) for use in uses], _COLUMNS, lambda: [_cells(use) for use in uses])
    return 0


def _cells(use: DiskUse) -> Sequence[Cell]:
    share = f" ({use.reclaimable * 100 // use.bytes}%)" if use.bytes else ""
    return (
        Cell(use.kind, "bold"), Cell(str(use.total)), Cell(str(use.active)), Cell(size(use.bytes)),
        Cell(size(use.reclaimable) + share),
    )  # fmt: skip
