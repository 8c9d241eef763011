"""A container as ``ps`` and ``inspect`` show it."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pycore.cli.screen import Cell, Column
from pycore.cli.text import ago, short, span
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.image import Image, ImageConfig
from pycore.life.live import exit_code
from pycore.records.state import ContainerRecord

Row = dict[str, Any]

_SIGNALS = {each.value: each.name for each in signal.Signals}

COLUMNS = (
    Column("CONTAINER"),
    Column("IMAGE", shrinks=True),
    Column("STATUS"),
    Column("RESTARTS", right=True),
    Column("ADDRESS"),
    Column("PORTS"),
    Column("COMMAND", shrinks=True),
)


def row_of(engine: Engine, record: ContainerRecord) -> Row:
    """All that is shown of a container, as plain values."""
    try:
        told = engine.inspect(record)
    except PycoreError as error:
        told = {"problem": error.message}
    process, image = process_of(record), _image_of(record)
    entrypoint, command = image.program(process.get("entrypoint", ()), process.get("command", ()))
    return {
        "container": record.full_name,
        "id": record.id,
        "image": process.get("image", ""),
        "command": [*entrypoint, *command],
        "labels": labels_of(record),
        "status": state_of(record),
        "health": record.health or None,
        "exit_status": exit_code(record.exit_status),
        "reason": reason_of(record) or None,
        "restarts": record.restarts,
        "restart_at": record.restart_at or None,
        "pid": record.pid or None,
        "created": record.created,
        "started": record.started or None,
        "finished": record.finished or None,
        **told,
    }


def reason_of(record: ContainerRecord) -> str:
    """Why it ended, in words, where its status does not say it all: ``killed by SIGKILL: memory limit 64M reached``."""
    number = -(record.exit_status or 0)
    if number <= 0:
        return record.reason
    killed = f"killed by {_SIGNALS.get(number, f'signal {number}')}"
    return f"{killed}: {record.reason}" if record.reason else killed


def process_of(record: ContainerRecord) -> Mapping[str, Any]:
    """The container's own table, as its spec has it."""
    tables: Mapping[str, Mapping[str, Any]] = record.source["container"]
    return tables.get(record.name) or next(iter(tables.values()))


def labels_of(record: ContainerRecord) -> Mapping[str, str]:
    """Those of its image, and above them those of its spec."""
    return {**_image_of(record).labels, **process_of(record).get("labels", {})}


def _image_of(record: ContainerRecord) -> ImageConfig:
    return Image.from_json(record.image).config if record.image else ImageConfig()


def state_of(record: ContainerRecord) -> str:
    """OCI's state, or ``paused``, or ``restarting`` while its policy waits to start it again."""
    if record.status == "running" and record.paused:
        return "paused"
    if record.status == "stopped" and record.restart_at:
        return "restarting"
    return record.status


def cells(row: Row, full: bool) -> Sequence[Cell]:
    """The row's words, in :data:`COLUMNS`; ``full``: nothing is cut."""
    command = " ".join(map(str, row["command"]))
    return (
        Cell(row["container"], "bold"),
        Cell(str(row["image"])),
        status_cell(row),
        Cell(str(row["restarts"]), "" if not row["restarts"] else "yellow"),
        Cell(str(row.get("address") or "-")),
        Cell(", ".join(map(str, row.get("ports") or [])) or "-"),
        Cell(command if full else short(command), "dim"),
    )


def status_cell(row: Row) -> Cell:
    """What it does and how it fares: ``running 3m (healthy)``, ``stopped (137: killed by SIGKILL) 2h ago``."""
    status, health = row["status"], row["health"]
    if status == "running" and row["started"]:
        words = f"running {ago(row['started'])}" + (f" ({health})" if health else "")
        return Cell(words, {"unhealthy": "red", "starting": "yellow"}.get(health or "", "green"))
    if status == "paused" and row["started"]:
        return Cell(f"paused, up {ago(row['started'])}", "yellow")
    if status == "restarting":
        return Cell(f"restarting in {span(row['restart_at'] - time.time() + 0.5)} {_end(row)}", "yellow")
    if status == "stopped":
        since = f" {ago(row['finished'])} ago" if row["finished"] else ""
        return Cell(f"stopped {_end(row)}{since}", "dim" if row["exit_status"] == 0 else "red")
    return Cell(str(status), "yellow")


def _end(row: Row) -> str:
    """How it last ended, in brackets: exit status and reason."""
    code = "unknown" if row["exit_status"] is None else str(row["exit_status"])
    return f"({code}: {row['reason']})" if row["reason"] else f"({code})"
