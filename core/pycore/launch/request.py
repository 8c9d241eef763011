"""What the spawner is asked to start: operations, program, environment, as one value."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from pycore.ops import Operation, from_record, to_record

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


_REMEMBERED = 512
"""Operations that both ends remember: most of a container's are those of any other, all but a few at its next start."""


@lru_cache(_REMEMBERED)
def _written(operation: Operation) -> str:
    return json.dumps(to_record(operation), separators=(",", ":"))


@lru_cache(_REMEMBERED)
def _read(text: str) -> Operation:
    return from_record(json.loads(text))


@dataclass(frozen=True)
class Request:
    """A process to be started: a container's first, or one more in a container that runs.

    ``operations`` are those of the launch, enter and confine phases, in order. For one more process only those
    of the step JOIN and of the confine phase count: it joins namespaces that are made.
    """

    id: str
    """What its end is told under: the container's id, or for one more process an id of its own."""
    name: str
    """``APP/NAME``."""
    operations: tuple[Operation, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: str = "/"
    ids: tuple[int, int] = (0, 0)
    """The first of the host's ids that its user namespace has, and how many; zeros without one."""
    terminal: bool = False
    """Whether it gets a terminal of the container's own as its standard streams, in the place of those it was given."""
    window: tuple[int, int] = (0, 0)
    """Rows and columns of that terminal; zeros where nobody knows."""
    call: str = ""
    """``MODULE:FUNCTION`` of pycore, called with ``argv`` inside, instead of a program. See :meth:`function`."""

    def function(self) -> Callable[..., int | None]:
        """The function that ``call`` names, imported here and now: inside, nothing can be any more.

        It gets the standard streams as descriptors 0 to 2 and nothing else of the host; what it returns is the
        exit status. It must not resolve names of users, groups or hosts: the C library would load modules for
        that from the container's file system. Raises ImportError, AttributeError.
        """
        module, _, name = self.call.partition(":")
        return cast("Callable[..., int | None]", getattr(importlib.import_module(module), name))

    def to_json(self) -> dict[str, Any]:
        """As plain values; each operation as text, which who has read it before need not take apart again."""
        return {
            "id": self.id,
            "name": self.name,
            "operations": [_written(operation) for operation in self.operations],
            "argv": list(self.argv),
            "environment": dict(self.environment),
            "working_dir": self.working_dir,
            "ids": list(self.ids),
            "terminal": self.terminal,
            "window": list(self.window),
            "call": self.call,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Request:
        return cls(
            id=fields["id"],
            name=fields["name"],
            operations=tuple(_read(text) for text in fields["operations"]),
            argv=tuple(fields["argv"]),
            environment=fields["environment"],
            working_dir=fields["working_dir"],
            ids=tuple(fields["ids"]),
            terminal=fields["terminal"],
            window=tuple(fields["window"]),
            call=fields["call"],
        )
