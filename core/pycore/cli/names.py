"""What the words of a command line name: a container, or an app and so all of its containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pycore.cli.rows import labels_of, state_of
from pycore.engine import Engine
from pycore.errors import UsageError
from pycore.records.state import ContainerRecord


def containers_of(engine: Engine, words: Sequence[str]) -> list[ContainerRecord]:
    """The containers that the words name, each once, in the words' order. Raises NotFound, Conflict."""
    found = {record.id: record for word in words for record in engine.find_all(word)}
    return list(found.values())


class Filter:
    """``--filter KEY=VALUE``: the same key again is another value that will do, another key narrows further."""

    KEYS = ("app", "name", "status", "health", "label")

    def __init__(self, words: Iterable[str]) -> None:
        """Raises UsageError."""
        self._wanted: dict[str, list[str]] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or key not in self.KEYS:
                raise UsageError(f"--filter {word}: must be KEY=VALUE, with one of {', '.join(self.KEYS)}")
            self._wanted.setdefault(key, []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self._wanted

    def __call__(self, record: ContainerRecord) -> bool:
        """Whether a container is wanted."""
        return all(any(_fits(record, key, value) for value in values) for key, values in self._wanted.items())


def has_label(labels: Mapping[str, str], asked: str) -> bool:
    """Whether a thing has the label that ``--filter label=`` asks for: KEY, or KEY=VALUE."""
    name, equals, text = asked.partition("=")
    return name in labels and (not equals or labels[name] == text)


def _fits(record: ContainerRecord, key: str, value: str) -> bool:
    if key == "label":
        return has_label(labels_of(record), value)
    if key == "name":
        return value in record.full_name
    found = {"app": record.app, "status": state_of(record), "health": record.health or "none"}[key]
    return found == value
