"""How a container ended, kept in the run dir: written by whoever learned of it first, spawner or launcher."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

EXIT_FILE = "exit.json"


class End(NamedTuple):
    """An end: the exit status (negative for a signal's number, None where nobody can know), seconds since 1970."""

    status: int | None
    time: float


def write_end(run_dir: Path, identity: str, end: End) -> None:
    """Put the file in place whole, before anybody is told."""
    with contextlib.suppress(OSError):  # the run dir, or the container's part, is gone: nobody will ask
        place = f"{run_dir}/containers/{identity}/{EXIT_FILE}"
        temporary = f"{place}.{os.getpid()}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"exited": identity, "status": end.status, "time": end.time}, file)
            file.write("\n")
        os.rename(temporary, place)


def read_end(run_dir: Path, identity: str) -> End | None:
    """What was written; None where nothing was, or no such thing."""
    try:
        with open(f"{run_dir}/containers/{identity}/{EXIT_FILE}", encoding="utf-8") as file:
            fields = json.load(file)
        return End(fields["status"], fields["time"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
