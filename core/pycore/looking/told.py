"""What plugins tell of containers, asked once for a record: a listing of a thousand must not ask a thousand times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pycore.records.state import ContainerRecord

_FEW = 64


class Told:
    """The answers of ``pycore_inspect``, until the record that was asked about changes."""

    def __init__(
        self, ask: Callable[[ContainerRecord], dict[str, Any]], all_records: Callable[[], Iterable[ContainerRecord]]
    ) -> None:
        """``all_records`` are the containers that are there: answers about others are forgotten now and then."""
        self._ask, self._all_records = ask, all_records
        self._known: dict[str, tuple[ContainerRecord, dict[str, Any]]] = {}
        self._most = _FEW

    def of(self, record: ContainerRecord) -> dict[str, Any]:
        """What plugins tell of a container. Raises PluginError."""
        known = self._known.get(record.id)
        if known is None or not (known[0] is record or known[0] == record):
            known = record, self._ask(record)
            self._forget()
            self._known[record.id] = known
        return dict(known[1])

    def _forget(self) -> None:
        if len(self._known) >= self._most:
            alive = {record.id for record in self._all_records()}
            self._known = {identity: known for identity, known in self._known.items() if identity in alive}
            self._most = max(_FEW, 2 * len(self._known))
