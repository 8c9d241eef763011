"""What a user can be told: every failure that has a name, with the way out beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar


class PycoreError(Exception):
    """A failure with a message for a person.

    ``hint`` names the way out and is printed on a line of its own. ``exit_status`` is what the
    command ends with.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_json(self) -> dict[str, Any]:
        """The error as plain values, for the socket and for ``--json``."""
        return {"kind": type(self).__name__, "message": self.message, "hint": self.hint}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> PycoreError:
        """The inverse of :meth:`to_json`, for the class that wrote it."""
        return cls(fields["message"], hint=fields["hint"])


class UsageError(PycoreError):
    """The command line asks for something that cannot be meant."""

    exit_status = 2


class NotFound(PycoreError):
    """No such app, container or image."""


class Conflict(PycoreError):
    """Something else holds what is asked for: a name, a port, a run dir, a state."""


class ProbeFailed(PycoreError):
    """A health check had an answer, or none in time, that says the container is not well."""


class PluginError(PycoreError):
    """A plugin broke its contract or raised; the message names the plugin, the hook and the container."""


class SupervisorError(PycoreError):
    """The supervisor or the spawner cannot be reached, or does not speak our version."""

    exit_status = 125


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec.

    ``path`` is the way of keys and indexes from the top of the file, ``at_key`` says whether the key
    itself is meant (an unknown key) or its value. ``line`` and ``column`` count from 1; they and
    ``source`` (the whole line) are filled in by the loader, which alone knows the text.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None
    at_key: bool = False
    file: str = ""
    line: int = 0
    column: int = 0
    source: str = ""


class SpecError(PycoreError):
    """A spec with problems: all of them, not only the first."""

    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{p.file}:{p.line}:{p.column}: {p.message}" for p in self.problems))

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"problems": [asdict(problem) for problem in self.problems]}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> SpecError:
        problems: list[dict[str, Any]] = fields["problems"]
        return cls([replace(Problem(**problem), path=tuple(problem["path"])) for problem in problems])


class OperationError(PycoreError):
    """An operation failed: which one, at which step, from which plugin, and what the kernel said."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        operation: str = "",
        step: str = "",
        errno: int = 0,
        path: str = "",
        cleanup: Sequence[str] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.operation, self.step, self.errno, self.path = operation, step, errno, path
        self.cleanup = tuple(cleanup)
        """What could not be undone afterwards, in words; empty when all was."""

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {
            "operation": self.operation,
            "step": self.step,
            "errno": self.errno,
            "path": self.path,
            "cleanup": list(self.cleanup),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> OperationError:
        return cls(**{key: value for key, value in fields.items() if key != "kind"})


class StartError(OperationError):
    """The container's process could not be started for a reason other than its program; Docker's 125."""

    exit_status = 125


class NotExecutable(StartError):
    """The program is there but cannot be executed; Docker's 126."""

    exit_status = 126


class ProgramNotFound(StartError):
    """The program is not in the container; Docker's 127."""

    exit_status = 127


@contextlib.contextmanager
def noted(error: BaseException) -> Generator[None, None, None]:
    """While a failure is being cleaned up after: what fails there is said beside it, and does not replace it."""
    try:
        yield
    except PycoreError as failure:
        error.add_note(f"could not be put back: {failure.message}")


_KINDS: dict[str, type[PycoreError]] = {
    kind.__name__: kind
    for kind in (
        PycoreError,
        UsageError,
        NotFound,
        Conflict,
        PluginError,
        SupervisorError,
        SpecError,
        OperationError,
        StartError,
        NotExecutable,
        ProgramNotFound,
    )
}


def from_json(fields: Mapping[str, Any]) -> PycoreError:
    """The error that :meth:`PycoreError.to_json` wrote; an unknown kind becomes a plain error."""
    return _KINDS.get(fields["kind"], PycoreError).from_fields(fields)
