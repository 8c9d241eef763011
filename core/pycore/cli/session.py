"""One command of one user: what it works on, where it writes, and how it says what went wrong."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycore.engine import Engine
from pycore.errors import PycoreError, SpecError
from pycore.render import render


@dataclass
class Session:
    """One command of one user: what it works on and where it writes."""

    engine: Engine
    directory: Path
    """Where relative paths of the command line start."""
    environment: Mapping[str, str]
    stdio: tuple[int, int, int]
    connection: socket.socket | None = None
    """To the client, who sends a byte per signal; None in the client's own process."""
    json: bool = False

    def out(self, text: str) -> None:
        """Write to standard output, all of it. Raises OSError (BrokenPipeError) when nobody reads."""
        self.write(1, text.encode("utf-8", "surrogateescape"))

    def err(self, text: str) -> None:
        """Write to standard error."""
        self.write(2, text.encode("utf-8", "surrogateescape"))

    def write(self, stream: int, data: bytes) -> None:
        """Write bytes to standard output (1) or error (2)."""
        while data:
            data = data[os.write(self.stdio[stream], data) :]

    def show(self, value: Any, text: Callable[[], str]) -> None:
        """Print a value as JSON where ``--json`` was said, else as text for people."""
        self.out(json.dumps(value, indent=2, default=str) + "\n" if self.json else text())

    def path(self, word: str) -> Path:
        """A path of the command line."""
        return self.directory / word

    def gone(self) -> bool:
        """Whether the client has hung up."""
        if self.connection is None:
            return False
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)

    def signals(self) -> Iterator[int]:
        """Signals that the client passes on, until it hangs up."""
        while self.connection is not None:
            try:
                data = self.connection.recv(1)
            except OSError:
                return
            if not data:
                return
            yield data[0]


def report(session: Session, error: PycoreError) -> None:
    """Write an error for a person, or as JSON."""
    notes = getattr(error, "__notes__", [])
    if session.json:
        session.err(json.dumps({"error": error.to_json() | {"notes": notes}}, default=str) + "\n")
        return
    if isinstance(error, SpecError):
        session.err(render(error.problems) + "\n")
        return
    lines = [f"pycore: {error.message}", *(f"  {note}" for note in notes)]
    if error.hint:
        lines.append(f"  {error.hint}")
    session.err("\n".join(lines) + "\n")
