"""Verbs that look at containers and change nothing: ps, inspect, top, diff."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from pycore.cli.names import Filter
from pycore.cli.parser import Verb
from pycore.cli.plans import operation_json
from pycore.cli.rows import COLUMNS, Row, cells, row_of
from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.cli.text import ago, size
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.looking.top import Process
from pycore.records.state import ContainerRecord

_NUMBER = re.compile(r"(\d{1,18})")


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    ps = verb("ps", _ps, "list the containers that run")
    ps.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    ps.add_argument("-q", "--quiet", action="store_true", help="names only")
    ps.add_argument("-n", "--last", metavar="N", type=int, help="the N that were made last, running or not")
    ps.add_argument("-s", "--size", action="store_true", help="also what each takes on the disk by what it has written")
    ps.add_argument("--no-trunc", action="store_true", help="cut nothing short")
    ps.add_argument(
        "--filter", metavar="KEY=VALUE", action="append", default=[],
        help=f"only containers that fit: {', '.join(Filter.KEYS)}; the same key again is another value that will do",
    )  # fmt: skip
    inspect = verb("inspect", _inspect, "tell all about a container")
    inspect.add_argument("container", metavar="CONTAINER")
    top = verb("top", _top, "list the processes of a container")
    top.add_argument("container", metavar="CONTAINER")
    diff = verb("diff", _diff, "list what a container has added (A), changed (C) and deleted (D)")
    diff.add_argument("container", metavar="CONTAINER")


def _ps(session: Session, arguments: argparse.Namespace) -> int:
    records = _wanted(session.engine.containers(), arguments)
    if arguments.quiet:
        names = [record.full_name for record in records]
        session.show(names, lambda: "".join(f"{name}\n" for name in names))
        return 0
    rows = [row_of(session.engine, record) for record in records]
    full = arguments.no_trunc or session.terminal  # a terminal cuts what is too wide for it
    columns: Sequence[Column] = COLUMNS
    shown = cells
    if arguments.size:
        for row, record in zip(rows, records, strict=True):
            row["disk_bytes"] = _disk_bytes(session.engine, record)
        columns, shown = (*COLUMNS, Column("SIZE", right=True)), _with_size
    session.table(rows, columns, lambda: [shown(row, full) for row in rows], plain=arguments.no_trunc)
    return 0


def _with_size(row: Row, full: bool) -> Sequence[Cell]:
    taken = row["disk_bytes"]
    return (*cells(row, full), Cell("-" if taken is None else size(taken)))


def _disk_bytes(engine: Engine, record: ContainerRecord) -> int | None:
    """None where the driver does not know."""
    try:
        return engine.snapshot(record)[1].usage().bytes
    except (PycoreError, OSError):
        return None


def _wanted(records: Sequence[ContainerRecord], arguments: argparse.Namespace) -> list[ContainerRecord]:
    fits = Filter(arguments.filter)
    everything = arguments.all or arguments.last is not None or "status" in fits
    found = [record for record in records if (everything or _alive(record)) and fits(record)]
    if arguments.last is not None:
        made = sorted(found, key=lambda record: record.created)
        last = {record.id for record in made[max(0, len(made) - arguments.last) :]}
        found = [record for record in found if record.id in last]
    return sorted(found, key=_place)


def _place(record: ContainerRecord) -> list[tuple[str, int]]:
    """Where a container stands in a list: by name, ``web-2`` before ``web-10``."""
    words = _NUMBER.split(record.full_name)
    return [("", int(word)) if place % 2 else (word, 0) for place, word in enumerate(words)]


def _alive(record: ContainerRecord) -> bool:
    """Whether it runs, or will again by itself."""
    return record.status == "running" or bool(record.restart_at)


def _inspect(session: Session, arguments: argparse.Namespace) -> int:
    record = session.engine.find(arguments.container)
    session.print_json(
        row_of(session.engine, record)
        | {
            "wanted": record.wanted,
            "checks": session.engine.checks(record),
            "spec": record.source,
            "operations": [operation_json(each) for each in record.readable("prepared", "attached", "paused")[0]],
        }
    )
    return 0


_TOP = (
    Column("PID", right=True), Column("PPID", right=True), Column("USER"), Column("CPU", right=True),
    Column("MEMORY", right=True), Column("STARTED", right=True), Column("COMMAND", shrinks=True),
)  # fmt: skip


def _top(session: Session, arguments: argparse.Namespace) -> int:
    processes: Sequence[Process] = session.engine.top(arguments.container)

    def rows() -> list[tuple[Cell, ...]]:
        return [
            (
                Cell(str(each.pid), "bold"), Cell(str(each.ppid)), Cell(each.user), Cell(f"{each.cpu_seconds:.2f}s"),
                Cell(size(each.memory_bytes)), Cell(ago(each.started)), Cell(each.command),
            )
            for each in processes
        ]  # fmt: skip

    session.table([vars(each) for each in processes], _TOP, rows)
    return 0


_STYLES = {"A": "green", "C": "yellow", "D": "red"}


def _diff(session: Session, arguments: argparse.Namespace) -> int:
    changes = session.engine.snapshot(session.engine.find(arguments.container))[1].changes()
    plain = [{"path": each.path, "kind": each.kind} for each in changes]
    session.lines(plain, lambda: "".join(f"{each.kind} {each.path}\n" for each in changes), _STYLES)
    return 0
