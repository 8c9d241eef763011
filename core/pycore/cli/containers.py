"""Verbs that take containers: looked at, stopped, started, removed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pycore.cli.parser import Verb
from pycore.cli.plans import operation_json
from pycore.cli.session import Session, report
from pycore.engine import Engine
from pycore.errors import PycoreError, UsageError
from pycore.lifecycle import exit_code
from pycore.spec import signal_number
from pycore.state import ContainerRecord


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    ps = verb("ps", _ps, "list the containers that run")
    ps.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    ps.add_argument("-q", "--quiet", action="store_true", help="names only")
    inspect = verb("inspect", _inspect, "tell all about a container")
    inspect.add_argument("container", metavar="CONTAINER")
    stop = verb("stop", _stop, "ask a container to end, then kill it")
    stop.add_argument("-t", "--time", metavar="SECONDS", type=float, help="how long it may take")
    start = verb("start", _start, "start a container that has stopped")
    kill = verb("kill", _kill, "send a signal to a container")
    kill.add_argument("-s", "--signal", default="KILL", help="KILL unless said otherwise")
    wait = verb("wait", _wait, "wait until a container has ended, and print its exit status")
    remove = verb("rm", _remove, "remove a container that has stopped")
    for sub in (stop, start, kill, wait, remove):
        sub.add_argument("containers", metavar="CONTAINER", nargs="+")


def _ps(session: Session, arguments: argparse.Namespace) -> int:
    records = [each for each in session.engine.containers() if arguments.all or each.status == "running"]
    if arguments.quiet:
        session.show([each.full_name for each in records], lambda: "".join(f"{each.full_name}\n" for each in records))
    else:
        rows = [_row(session.engine, record) for record in records]
        session.show(rows, lambda: _table(rows))
    return 0


def _row(engine: Engine, record: ContainerRecord) -> dict[str, Any]:
    try:
        told = engine.inspect(record)
    except PycoreError as error:
        told = {"problem": error.message}
    process = record.source["container"][record.name]
    return {
        "container": record.full_name,
        "id": record.id,
        "image": process.get("image", ""),
        "command": process.get("command", []),
        "status": record.status,
        "exit_status": exit_code(record.exit_status),
        "pid": record.pid or None,
        "created": record.created,
        "started": record.started or None,
        "finished": record.finished or None,
        **told,
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("CONTAINER", "IMAGE", "STATUS", "ADDRESS", "PORTS", "COMMAND")
    lines = [head] + [
        (
            row["container"],
            row["image"],
            _status(row),
            str(row.get("address") or "-"),
            ", ".join(map(str, row.get("ports") or [])) or "-",
            _short(" ".join(row["command"])),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def _status(row: Mapping[str, Any]) -> str:
    if row["status"] == "running" and row["started"]:
        return f"running {_ago(row['started'])}"
    if row["status"] == "stopped":
        code = row["exit_status"]
        return f"stopped ({'unknown' if code is None else code})" + (
            f" {_ago(row['finished'])} ago" if row["finished"] else ""
        )
    return str(row["status"])


def _ago(then: float) -> str:
    seconds = max(0, int(time.time() - then))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _short(text: str, width: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _inspect(session: Session, arguments: argparse.Namespace) -> int:
    record = session.engine.find(arguments.container)
    row = _row(session.engine, record) | {
        "spec": record.source,
        "operations": [
            operation_json(operation) for which in ("prepared", "attached") for operation in record.operations(which)
        ],
    }
    session.out(json.dumps(row, indent=2, default=str) + "\n")
    return 0


def _each(session: Session, names: Sequence[str], act: Callable[[str], Any]) -> int:
    """Do something to several containers: all are tried, each failure is reported."""
    status = 0
    done: list[Any] = []
    for name in names:
        try:
            done.append(act(name))
        except PycoreError as error:
            report(session, error)
            status = max(status, error.exit_status)
    if session.json:
        session.out(json.dumps(done) + "\n")
    else:
        session.out("".join(f"{each}\n" for each in done))
    return status


def _stop(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda name: session.engine.stop(name, arguments.time).full_name)


def _start(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda name: session.engine.start(name).full_name)


def _kill(session: Session, arguments: argparse.Namespace) -> int:
    try:
        number = signal_number(arguments.signal)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _each(session, arguments.containers, lambda name: session.engine.kill(name, number).full_name)


def _wait(session: Session, arguments: argparse.Namespace) -> int:
    return _each(session, arguments.containers, lambda name: _wait_for(session, name))


def _wait_for(session: Session, name: str) -> int | None:
    """Wait without outliving the client."""
    while True:
        try:
            return session.engine.wait(name, 1.0)
        except TimeoutError:
            if session.gone():
                raise BrokenPipeError from None


def _remove(session: Session, arguments: argparse.Namespace) -> int:
    def remove(name: str) -> str:
        session.engine.remove(name)
        return name

    return _each(session, arguments.containers, remove)
