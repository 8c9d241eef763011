"""What an operation is: one step on the host as a value that can be shown, done, timed and undone.

Plugins do not act, they describe: a hook returns operations, the core runs them. An operation is a
frozen dataclass of plain values, so that the journal can keep it as JSON and another process can undo
it after a crash. Keep operations in a module that imports nothing heavy: the spawner loads it.
"""

from __future__ import annotations

import base64
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pycore.errors import OperationError
from pycore.steps import Step

if TYPE_CHECKING:
    from pycore.linux.kernel import Kernel


def _nobody(_words: str) -> None:
    """For :attr:`Context.tell`."""


@dataclass
class Context:
    """What an operation is given when it runs: the kernel, and what earlier operations left for it."""

    kernel: Kernel
    container: str = ""
    """``APP/NAME``, for messages."""
    tell: Callable[[str], None] = _nobody
    """On the host, for what takes long: said how far it is, for whoever waits. Raises PycoreError where nobody does
    any more."""
    client: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """On the host, for what is fetched: variables of who asks for it, which say where credentials are."""
    pid: int = 0
    """The container's first process as the host sees it; 0 before launch and inside."""
    root_id: int = 0
    """The id that root inside has, or will have, on the host; not 0 in a user namespace."""
    id_count: int = 0
    """In the enter phase: how many ids that user namespace has; 0 without one."""
    environment: dict[str, str] = field(default_factory=dict[str, str])
    """Inside: the environment of the program to be; an operation may add defaults (HOME)."""
    held: dict[object, int] = field(default_factory=dict[object, int])
    """Inside: descriptors that operations took hold of while the host's root was in sight, each under the
    operation, or under the path where one operation needs several."""
    terminal: int = -1
    """Inside: the container's own terminal, which belongs to the user that the program runs as; -1 without one."""
    root: int = -1
    """Inside: the detached mount that becomes the container's root; a storage driver sets it."""
    init: tuple[int, tuple[str, ...]] | None = None
    """Inside: what runs the program as its child: a descriptor of an executable, and its words before the program's."""


@dataclass(frozen=True)
class Operation:
    """Base of all operations.

    A subclass is a frozen dataclass whose fields are str, int, float, bool, None, bytes and tuples of
    these; it names its ``step`` and says what it does in :meth:`explain`.
    """

    step: ClassVar[Step]

    def depth(self) -> int:
        """How far below the root it works: of one step, what is nearer comes first, lest it cover the rest."""
        return 0

    def do(self, ctx: Context) -> None:
        """Do it. Raises OSError with the kernel's errno, or PycoreError with words of its own."""
        raise NotImplementedError

    def undo(self, ctx: Context) -> None:
        """Take it back. Idempotent: it may run for what was never done, or was undone already.

        Operations inside the container need no undo: the namespaces take it all with them.
        """

    def probe(self, ctx: Context) -> bool | None:
        """Whether it is in force on the host; None where that cannot be asked. Changes nothing.

        ``pycore doctor`` asks it of the operations that a running container's journal lists, and with ``--repair``
        does those again that are not.
        """
        return None

    def explain(self) -> str:
        """One line for ``plan -v``: what is done, in the kernel's words."""
        raise NotImplementedError


@dataclass(frozen=True)
class InsideOperation(Operation):
    """An operation of the enter phase that needs something of the host after the root has changed."""

    outside: ClassVar[bool] = False
    """Whether :meth:`hold` needs the powers of the host's root. Where the container has a user namespace it is
    then called before the clone; otherwise inside, like any other."""

    def hold(self, ctx: Context) -> None:
        """Take hold of it as a descriptor, before the root changes: ``ctx.held[self] = fd``.

        Called for all operations of the phase before any but those of the step JOIN is done; in a new user
        namespace also before the id maps are there, so the host's root still owns what it opens.
        """


def failure(kind: type[OperationError], operation: Operation, error: OSError, container: str) -> OperationError:
    """What the kernel said, with the operation it said it to."""
    words = operation.explain()
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    place = f" ({path})" if path and path not in words else ""
    return kind(
        f"{container}: {words}: {error.strerror or error}{place}",
        operation=words,
        step=operation.step.name.lower(),
        errno=error.errno or 0,
        path=path,
    )


Record = dict[str, Any]


def to_record(operation: Operation) -> Record:
    """The operation as JSON-able values; bytes become base64 under the key ``b64``."""
    kind = type(operation)
    record: Record = {"op": f"{kind.__module__}:{kind.__qualname__}"}
    for item in fields(operation):
        record[item.name] = _plain(getattr(operation, item.name))
    return record


def to_records(operations: Iterable[Operation]) -> tuple[Record, ...]:
    """Operations as a journal keeps them."""
    return tuple(to_record(operation) for operation in operations)


def from_record(record: Mapping[str, Any]) -> Operation:
    """The inverse of :func:`to_record`. Raises ImportError or AttributeError when the plugin is gone."""
    module, _, name = cast(str, record["op"]).partition(":")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and issubclass(kind, Operation)):
        raise AttributeError(f"{record['op']} is not an operation")
    return kind(**{key: _frozen(value) for key, value in record.items() if key != "op"})


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(Sequence[Any], value)]
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in cast(Sequence[Any], value))
    if isinstance(value, dict):
        return base64.b64decode(cast(Mapping[str, str], value)["b64"])
    return value
