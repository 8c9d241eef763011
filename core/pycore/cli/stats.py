"""The verb stats: what containers use, as a table that lives, or as a line of JSON per round."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from pycore.cli.names import containers_of
from pycore.cli.parser import Verb
from pycore.cli.screen import Cell, Column, Painting
from pycore.cli.session import Session
from pycore.cli.text import columns, size
from pycore.engine import Engine
from pycore.looking.stats import Sample

ROUND = 1.0
"""Seconds between two samples."""

_COLUMNS = (
    Column("CONTAINER"), Column("CPU", right=True), Column("MEMORY / LIMIT", right=True), Column("MEM", right=True),
    Column("NET I/O", right=True), Column("BLOCK I/O", right=True), Column("PIDS", right=True),
)  # fmt: skip


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    stats = verb("stats", _stats, "show what containers use, again and again")
    stats.add_argument("--no-stream", action="store_true", help="once")
    stats.add_argument("containers", metavar="CONTAINER|APP", nargs="*", help="all that run, where none is named")


def _stats(session: Session, arguments: argparse.Namespace) -> int:
    """The share of a processor is counted between two samples, so the first is shown only after the second."""
    words = [word for word, said in (("--json", session.json), ("--no-stream", arguments.no_stream)) if said]
    session.resume(["stats", *words, *arguments.containers])
    names = [record.id for record in containers_of(session.engine, arguments.containers)]
    before: Mapping[str, Sample] = {each.id: each for each in session.engine.stats(names)}
    painting = Painting(session)
    while not session.rest(ROUND):
        samples: Sequence[Sample] = session.engine.stats(names)
        _show(session, painting, samples, before)
        before = {each.id: each for each in samples}
        if arguments.no_stream:
            return 0
    return 0


def _show(session: Session, painting: Painting, samples: Sequence[Sample], before: Mapping[str, Sample]) -> None:
    if session.json:
        session.print_json([each.to_json(before.get(each.id)) for each in samples], indent=None)
        return
    rows = [_cells(each, before.get(each.id)) for each in samples]
    if session.terminal:
        painting.paint(_COLUMNS, rows)
    else:
        session.out(columns([column.head for column in _COLUMNS], [[cell.text for cell in row] for row in rows]))


def _cells(sample: Sample, before: Sample | None) -> Sequence[Cell]:
    numbers, share = sample.numbers, sample.cpu_percent(before)
    used, limit = numbers.get("memory_bytes"), numbers.get("memory_limit_bytes")
    return (
        Cell(sample.container, "bold"),
        Cell("-" if share is None else f"{share:.1f}%", "yellow" if share and share > 90 else ""),
        Cell(f"{_size(used)} / {_size(limit)}"),
        Cell("-" if used is None or not limit else f"{used / limit * 100:.1f}%"),
        Cell(_pair(numbers, "network_receive_bytes_total", "network_transmit_bytes_total")),
        Cell(_pair(numbers, "block_read_bytes_total", "block_write_bytes_total")),
        Cell("-" if "pids" not in numbers else f"{numbers['pids']:.0f}"),
    )


def _size(number: float | None) -> str:
    return "-" if number is None else size(number)


def _pair(numbers: Mapping[str, float], one: str, other: str) -> str:
    if one not in numbers and other not in numbers:
        return "-"
    return f"{_size(numbers.get(one))} / {_size(numbers.get(other))}"
