"""What becomes of each container during an apply: lines that change in a terminal, else a line for what is done."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence

from pycore.cli.painter import Painter
from pycore.cli.screen import Cell, Column, Painting
from pycore.cli.session import Session
from pycore.convergence.applying import FINAL
from pycore.errors import PycoreError

_COLUMNS = (Column(""), Column("", shrinks=True), Column("", right=True))
_SIGNS = {True: Cell("✔", "green"), False: Cell("•", "yellow")}


class Lines:
    """Where output is piped: a line for each thing that is done. The callback of an apply."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, container: str, words: str) -> None:
        if words in FINAL:
            self._session.out(f"{container} {words}\n")

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Nothing(Lines):
    """Where JSON is wanted: nothing until the end."""

    def __call__(self, container: str, words: str) -> None:
        pass


class Live(Lines):
    """In a terminal: a line per container that is painted over."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._painting = Painting(session)
        self._painter = Painter(self._paint)
        self._lock = threading.Lock()
        self._words: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._failed: dict[str, str] = {}

    def __call__(self, container: str, words: str) -> None:
        with self._lock:
            self._words[container] = words
            self._begun.setdefault(container, time.monotonic())
            if words in FINAL:
                self._ended[container] = time.monotonic()
            else:
                self._ended.pop(container, None)
        self._painter.changed()

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            if raised[1] is not None:
                self._note_failure(raised[1])
        self._painter.close()

    def _note_failure(self, error: object) -> None:
        """Nothing of a failed apply stays: whose failure it was, and what went with it."""
        message = error.message if isinstance(error, PycoreError) else ""
        for container, words in self._words.items():
            own = message.startswith((f"{container}:", f"{container} "))
            self._failed[container] = "failed" if own else "taken back" if words in FINAL else "given up"

    def _paint(self) -> None:
        with self._lock:
            rows = self._rows()
        if rows:
            self._painting.paint(_COLUMNS, rows)

    def _rows(self) -> list[Sequence[Cell]]:
        """A line for each container, or, where there are more than the terminal has, counts and what is going on."""
        _, height = self._session.terminal_size()
        names = list(self._words)
        if len(names) < height:
            return [self._row(name) for name in names]
        counts = Counter(self._failed.get(name, self._words[name]) for name in names)
        summary = [
            (Cell(str(number), "bold"), Cell(words), Cell("")) for words, number in counts.most_common(height // 3)
        ]
        busy = [name for name in names if self._words[name] not in FINAL and self._words[name] != "pending"]
        return [*summary, *(self._row(name) for name in busy[: height - 2 - len(summary)])]

    def _row(self, name: str) -> Sequence[Cell]:
        words = self._words[name]
        took = f"{self._ended.get(name, time.monotonic()) - self._begun[name]:.1f}s"
        if name in self._failed:
            return Cell("✘", "red"), Cell(f"{name} {self._failed[name]}", "red"), Cell(took, "dim")
        return _SIGNS[words in FINAL], Cell(f"{name} {words}"), Cell(took, "dim")


def progress_of(session: Session) -> Lines:
    """What an apply tells of itself, in the way that fits whoever gave the command."""
    if session.json:
        return Nothing(session)
    return Live(session) if session.terminal else Lines(session)
