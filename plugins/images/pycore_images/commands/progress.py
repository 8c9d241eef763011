"""How far the layers of an image are: bars in a terminal, a line for each that is done, or lines of JSON."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pycore.cli.painter import Painter
from pycore.cli.screen import Cell, Column, Painting
from pycore.cli.session import Session
from pycore.cli.text import size

from pycore_images.commands.naming import short_id
from pycore_images.content import Descriptor, Progress

PULLED: Mapping[str, str] = {"done": "pull complete", "there": "already exists"}
PUSHED: Mapping[str, str] = {"done": "pushed", "there": "layer already exists"}
LOADED: Mapping[str, str] = {"done": "loaded", "there": "already exists"}
SAVED: Mapping[str, str] = {"done": "saved", "there": "already there"}

_BAR = 30
_COLUMNS = (Column("", shrinks=True), Column(""), Column(""), Column("", right=True))


@dataclass
class _Layer:
    layer: Descriptor
    word: str
    done: int


class Layers:
    """Shows how far each layer is, in the order in which they are first heard of; a context manager.

    ``final`` says what is shown for ``done`` and ``there``.
    """

    def __init__(self, session: Session, final: Mapping[str, str], quiet: bool = False) -> None:
        self._session, self._final = session, final
        self._lock = threading.Lock()
        self._layers: dict[str, _Layer] = {}
        self._news: list[_Layer] = []
        self._painting = Painting(session)
        live = session.terminal and not session.json
        self._painter = None if quiet else Painter(self._paint if live else self._print)

    def __call__(self, layer: Descriptor, word: str, done: int) -> None:
        """A :data:`pycore_images.content.Progress`."""
        if self._painter is None:
            return
        with self._lock:
            before = self._layers.get(layer.digest)
            self._layers[layer.digest] = found = _Layer(layer, word, done)
            if before is None or before.word != word or self._session.json:
                self._news.append(found)
        self._painter.changed()

    @property
    def progress(self) -> Progress:
        """To be handed on."""
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._painter:
            self._painter.close()

    def _print(self) -> None:
        with self._lock:
            news, self._news = self._news, []
        for each in news:
            if self._session.json:
                self._session.print_json(_json(each), indent=None)
            elif each.word in self._final:
                self._session.out(f"{short_id(each.layer.digest)}: {self._final[each.word]}\n")

    def _paint(self) -> None:
        _, height = self._session.terminal_size()
        with self._lock:
            shown = [*self._layers.values()]
            if len(shown) >= height:  # of more than the terminal has lines, those that something is done with
                busy = [each for each in shown if each.word not in self._final]
                shown = busy[: height - 1] or shown[-1:]
            rows = [self._row(each) for each in shown]
        if rows:
            self._painting.paint(_COLUMNS, rows)

    def _row(self, each: _Layer) -> Sequence[Cell]:
        name, total = Cell(short_id(each.layer.digest), "bold"), each.layer.size
        if each.word in self._final:
            return name, Cell(self._final[each.word], "green"), Cell("━" * _BAR, "green"), Cell(size(total))
        filled = int(min(1.0, each.done / total) * _BAR) if total else 0
        style = {"retrying": "yellow", "waiting": "dim"}.get(each.word, "")
        bar = "━" * filled + "─" * (_BAR - filled)
        return name, Cell(each.word, style), Cell(bar, "cyan"), Cell(f"{size(each.done)} / {size(total)}")


def _json(each: _Layer) -> dict[str, object]:
    return {"layer": each.layer.digest, "status": each.word, "done": each.done, "size": each.layer.size}
