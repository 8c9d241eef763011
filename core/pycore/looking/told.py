"""What plugins tell of containers, asked once for a record: a listing of a thousand must not ask a thousand times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from pycore.errors import PycoreError
from pycore.records.state import ContainerRecord

_FEW = 64

_About = tuple[object, ...]


def _about(record: ContainerRecord) -> _About:
    """What an answer can depend on: what the container is made of, and what there is of it on the host.

    Its health and the like are not among it: they change often, and plugins are not told of them.
    """
    return record.app, record.name, record.source, record.directory, record.pid, record.prepared, record.attached


class Told:
    """The answers of ``pycore_inspect``, until what they depend on changes."""

    def __init__(
        self, ask: Callable[[ContainerRecord], dict[str, Any]], all_records: Callable[[], Iterable[ContainerRecord]]
    ) -> None:
        """``all_records`` are the containers that are there: answers about others are forgotten now and then."""
        self._ask, self._all_records = ask, all_records
        self._known: dict[str, tuple[_About, dict[str, Any]]] = {}
        self._most = _FEW

    def of(self, record: ContainerRecord) -> dict[str, Any]:
        """What plugins tell of a container. Raises PluginError."""
        about, known = _about(record), self._known.get(record.id)
        if known is None or known[0] != about:
            known = about, self._ask(record)
            self._forget()
            self._known[record.id] = known
        return dict(known[1])

    def ahead(self, records: Iterable[ContainerRecord]) -> None:
        """Ask before anybody else does, so that whoever looks first need not wait longer than who looks next."""
        for record in records:
            with contextlib.suppress(PycoreError):  # who asks is told
                self.of(record)

    def _forget(self) -> None:
        if len(self._known) >= self._most:
            alive = {record.id for record in self._all_records()}
            self._known = {identity: known for identity, known in [*self._known.items()] if identity in alive}
            self._most = max(_FEW, 2 * len(self._known))
