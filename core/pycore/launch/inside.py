"""What happens inside, phase by phase, on whatever kernel: the order of the core's own acts between the operations.

The child process runs these functions, and so does the fake launcher of the testing kit.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Generator, Iterable

from pycore.errors import StartError
from pycore.launch.request import Request
from pycore.ops import Context, InsideOperation, Operation, failure
from pycore.steps import Phase, Step


def take_hold_outside(request: Request, ctx: Context) -> None:
    """What only the host's root can take hold of, for a process that will not be it any more."""
    for operation in _of(request, Phase.ENTER):
        if isinstance(operation, InsideOperation) and operation.outside:
            _try(operation, operation.hold, ctx)


def take_hold(request: Request, ctx: Context) -> None:
    """Join the cgroup and take hold of the host's things, while we are still the host's root.

    In a new user namespace this comes before the id maps: then the kernel still sees the host's uid 0, to
    which the private directories and cgroup files belong, whatever the namespace's root will be.
    """
    operations = _of(request, Phase.ENTER)
    with _named(request, "keep mounts in its own namespace", Step.NAMESPACES):
        ctx.kernel.mount_private()
    _each((operation for operation in operations if operation.step is Step.JOIN), ctx)
    for operation in operations:
        if isinstance(operation, InsideOperation) and operation not in ctx.held:
            _try(operation, operation.hold, ctx)


def enter(request: Request, ctx: Context) -> None:
    """The rest of the enter phase; the root is changed after the step ROOT."""
    operations = _of(request, Phase.ENTER)
    _each((operation for operation in operations if operation.step is Step.ROOT), ctx)
    if ctx.root >= 0:
        with _named(request, "change the root", Step.ROOT):
            ctx.kernel.enter_root(ctx.root)
    _each((operation for operation in operations if operation.step not in (Step.JOIN, Step.ROOT)), ctx)
    _enter_directory(request, ctx, make=True)


def join(request: Request, ctx: Context, target: int, namespaces: int) -> None:
    """The other way inside: into namespaces (CLONE_NEW*) that are made already, those of ``target``, a pidfd.

    The cgroup first, as long as the host's is in sight. A working directory that is missing is an error here:
    one more process changes nothing of the container.
    """
    _each((operation for operation in _of(request, Phase.ENTER) if operation.step is Step.JOIN), ctx)
    try:
        ctx.kernel.join_namespaces(target, namespaces)
    except ProcessLookupError:
        raise ended(request.name) from None
    except OSError as error:
        message = f"{request.name}: its namespaces cannot be joined: {error.strerror}"
        raise StartError(message, step="namespaces", errno=error.errno or 0) from error
    _enter_directory(request, ctx, make=False)


def ended(name: str) -> StartError:
    """What is said of a container that ended before one more process could join it."""
    return StartError(f"{name}: the container has just ended", step="namespaces", errno=errno.ESRCH)


def _enter_directory(request: Request, ctx: Context, make: bool) -> None:
    try:
        ctx.kernel.enter_directory(request.working_dir, make)
    except OSError as error:
        message = f"{request.name}: working directory {request.working_dir}: {error.strerror}"
        raise StartError(message, step="exec", errno=error.errno or 0, path=request.working_dir) from error


def confine(request: Request, ctx: Context) -> None:
    """The confine phase."""
    _each(_of(request, Phase.CONFINE), ctx)


@contextlib.contextmanager
def _named(request: Request, act: str, step: Step) -> Generator[None, None, None]:
    """An act of the core's own that fails is told as an operation would be."""
    try:
        yield
    except OSError as error:
        message = f"{request.name}: {act}: {error.strerror or error}"
        raise StartError(message, operation=act, step=step.name.lower(), errno=error.errno or 0) from error


def _of(request: Request, phase: Phase) -> list[Operation]:
    return [operation for operation in request.operations if operation.step.phase is phase]


def _each(operations: Iterable[Operation], ctx: Context) -> None:
    for operation in operations:
        _try(operation, operation.do, ctx)


def _try(operation: Operation, act: Callable[[Context], None], ctx: Context) -> None:
    try:
        act(ctx)
    except OSError as error:
        raise failure(StartError, operation, error, ctx.container) from error
