"""One command of one user: what it works on, where it writes, and how it says what went wrong."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycore.cli.screen import Cell, Column, coloured, is_terminal, show_table, terminal_size
from pycore.cli.text import columns, harmless
from pycore.client import RESUME
from pycore.engine import Engine
from pycore.errors import PycoreError, SpecError
from pycore.source.render import render

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals by which a person ends a command."""


class Interrupted(Exception):
    """Who gave the command has hung up, or does not want it any longer."""


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
    lasting: bool = False
    """Whether a supervisor that is to end does not wait for the answer: see :meth:`resume` and :meth:`lasts`."""
    on_lasting: Callable[[], None] | None = None
    _gone: bool = False

    def out(self, text: str) -> None:
        """Write text for people to standard output, without what could steer a terminal.

        Raises OSError (BrokenPipeError) when nobody reads.
        """
        self.write(1, harmless(text).encode())

    def err(self, text: str) -> None:
        """Write text for people to standard error, likewise."""
        self.write(2, harmless(text).encode())

    def write(self, stream: int, data: bytes) -> None:
        """Write bytes, as they are and all of them, to standard output (1) or error (2)."""
        while data:
            data = data[os.write(self.stdio[stream], data) :]

    def show(self, value: Any, text: Callable[[], str]) -> None:
        """Print a value as JSON where ``--json`` was said, else as text for people."""
        if self.json:
            self.print_json(value)
        else:
            self.out(text())

    def lines(self, value: Any, text: Callable[[], str], styles: Mapping[str, str]) -> None:
        """Print a value as JSON where ``--json`` was said, else text, in a terminal with a style by first character."""
        if self.json or not self.terminal:
            self.show(value, text)
        else:
            self.write(1, coloured(self, text(), styles).encode("utf-8", "replace"))

    def print_json(self, value: Any, indent: int | None = 2) -> None:
        """Print a value as JSON, in ASCII; without an indent on one line."""
        self.write(1, json.dumps(value, indent=indent, default=str).encode() + b"\n")

    def table(
        self, value: Any, head: Sequence[Column], rows: Callable[[], Sequence[Sequence[Cell]]], *, plain: bool = False
    ) -> None:
        """Print a value as JSON where ``--json`` was said, else ``rows``: with colours and cut to fit in a terminal,
        in plain text when piped, or where ``plain`` asks for it.
        """
        if self.json:
            self.print_json(value)
        elif self.terminal and not plain:
            show_table(self, head, rows())
        else:
            self.out(columns([column.head for column in head], [[cell.text for cell in row] for row in rows()]))

    @property
    def terminal(self) -> bool:
        """Whether standard output is a terminal that can do more than print line after line."""
        return is_terminal(self.stdio[1], self.environment)

    def terminal_size(self) -> tuple[int, int]:
        """(columns, lines) of the terminal that standard output is."""
        return terminal_size(self.stdio[1], self.environment)

    def path(self, word: str) -> Path:
        """A path of the command line."""
        return self.directory / word

    def gone(self) -> bool:
        """Whether the client has hung up, or was asked to end. For verbs that do not take its :meth:`signals`."""
        if self.connection is None:
            return False
        while not self._gone:
            try:
                data = self.connection.recv(64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._gone = not data or any(number in ENDING for number in data)
        return self._gone

    def lasts(self) -> None:
        """Say that the verb may take for ever: who wants the supervisor to end does not wait for it."""
        self.lasting = True
        if self.on_lasting:
            self.on_lasting()

    def resume(self, words: Sequence[str]) -> None:
        """Tell the client with which words to go on should the supervisor end now, the last ones count. It lasts."""
        if self.connection is None:
            return
        text = "\0".join(words).encode("utf-8", "surrogateescape")
        self.connection.sendall(RESUME.to_bytes(4, "big") + len(text).to_bytes(4, "big") + text)
        if not self.lasting:
            self.lasts()

    def hangups(self) -> tuple[int, ...]:
        """Descriptors that hang up when the client is gone."""
        return () if self.connection is None else (self.connection.fileno(),)

    def rest(self, seconds: float) -> bool:
        """Do nothing for a while, less where the client does not wait for it; whether that is so."""
        until = time.monotonic() + seconds
        while not self.gone() and (left := until - time.monotonic()) > 0:
            if self.connection is None:
                time.sleep(left)
            else:
                waiting = select.poll()  # select(2) knows no descriptor above 1023
                waiting.register(self.connection, select.POLLIN)
                waiting.poll(left * 1000)
        return self.gone()

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
