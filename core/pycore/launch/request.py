"""What the spawner is asked to start: operations, program, environment, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pycore.ops import Operation, from_record, to_record

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Request:
    """A container to be started. ``operations`` are those of the launch, enter and confine phases, in order."""

    id: str
    name: str
    """``APP/NAME``."""
    operations: tuple[Operation, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: str = "/"

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "operations": [to_record(operation) for operation in self.operations],
            "argv": list(self.argv),
            "environment": dict(self.environment),
            "working_dir": self.working_dir,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Request:
        return cls(
            id=fields["id"],
            name=fields["name"],
            operations=tuple(from_record(record) for record in fields["operations"]),
            argv=tuple(fields["argv"]),
            environment=fields["environment"],
            working_dir=fields["working_dir"],
        )
