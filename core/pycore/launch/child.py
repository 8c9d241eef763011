"""Inside: from clone to exec. What the container's process does before it becomes the program.

It says nothing while all goes well. An error goes back over its channel whole; end of file on that
channel, which is close-on-exec, means that the program runs.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, cast

from pycore.errors import NotExecutable, OperationError, ProgramNotFound, PycoreError, StartError
from pycore.launch.channel import Channel
from pycore.launch.request import DEFAULT_PATH, Request
from pycore.linux import libc
from pycore.linux.kernel import Kernel
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Phase, Step


def become(request: Request, channel: Channel, stdio: Sequence[int], wait_for_maps: bool) -> NoReturn:
    """Turn this freshly cloned process into the container's program. Never returns."""
    status = 125
    try:
        gc.disable()
        os.setsid()
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        ctx = Context(Kernel(), container=request.name, environment=dict(request.environment))
        _take_hold(request, ctx)
        if wait_for_maps:
            _expect(channel, "mapped")
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        _enter(request, ctx)
        _expect(channel, "go")
        _confine(request, ctx)
        _execute(request.argv, ctx.environment)
    except PycoreError as error:
        status = error.exit_status
        _report(channel, error)
    except BaseException as error:  # whatever it is, the other side must hear of it
        _report(channel, StartError(f"{request.name}: {type(error).__name__}: {error}"))
    os._exit(status)


def _report(channel: Channel, error: PycoreError) -> None:
    with contextlib.suppress(OSError):
        channel.send({"error": error.to_json()})


def _expect(channel: Channel, word: str) -> None:
    """Wait for the other side to say a word; when it is gone, so are we."""
    while True:
        received = channel.receive()
        if received is None:
            os._exit(125)
        if word in received[0]:
            return


def _take_hold(request: Request, ctx: Context) -> None:
    """Join the cgroup and take hold of the host's things, while we are still the host's root.

    In a new user namespace this comes before the id maps: then the kernel still sees the host's uid 0, to
    which the private directories and cgroup files belong, whatever the namespace's root will be.
    """
    enter = _of(request, Phase.ENTER)
    ctx.kernel.mount_private()
    _each([operation for operation in enter if operation.step is Step.JOIN], ctx, _do)
    _each([operation for operation in enter if isinstance(operation, InsideOperation)], ctx, _hold)


def _hold(operation: Operation, ctx: Context) -> None:
    cast(InsideOperation, operation).hold(ctx)


def _of(request: Request, phase: Phase) -> list[Operation]:
    return [operation for operation in request.operations if operation.step.phase is phase]


def _enter(request: Request, ctx: Context) -> None:
    """The rest of the enter phase; the core changes root after the step ROOT."""
    operations = [operation for operation in _of(request, Phase.ENTER) if operation.step is not Step.JOIN]
    before = [operation for operation in operations if operation.step is Step.ROOT]
    _each(before, ctx, _do)
    if ctx.root >= 0:
        ctx.kernel.enter_root(ctx.root)
    _each(operations[len(before) :], ctx, _do)
    with _named(f"{request.name}: working directory {request.working_dir}"):
        place = ctx.kernel.make_place(request.working_dir)
        os.fchdir(place)
        os.close(place)


def _confine(request: Request, ctx: Context) -> None:
    """The confine phase. Descriptors are closed first: nothing of the host may be open beyond here (CVE-2024-21626)."""
    libc.close_on_exec(3)
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    _each(_of(request, Phase.CONFINE), ctx, _do)


def _do(operation: Operation, ctx: Context) -> None:
    operation.do(ctx)


def _each(operations: Sequence[Operation], ctx: Context, act: Callable[[Operation, Context], None]) -> None:
    for operation in operations:
        try:
            act(operation, ctx)
        except OSError as error:
            raise operation_error(StartError, operation, error, ctx.container) from error


def operation_error(kind: type[OperationError], operation: Operation, error: OSError, container: str) -> OperationError:
    """What the kernel said, with the operation it said it to."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    words = error.strerror or str(error)
    place = f" ({path})" if path and path not in operation.explain() else ""
    return kind(
        f"{container}: {operation.explain()}: {words}{place}",
        operation=operation.explain(),
        step=operation.step.name.lower(),
        errno=error.errno or 0,
        path=path,
    )


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartError(f"{what}: {error.strerror}", step="exec", errno=error.errno or 0) from error


def _execute(argv: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    """execve(2), with the program looked up in the container's PATH as a shell does."""
    program = argv[0]
    environment.setdefault("PATH", DEFAULT_PATH)
    if "/" in program:
        candidates = [program]
    else:
        candidates = [f"{directory or '.'}/{program}" for directory in environment["PATH"].split(":")]
    refused: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                refused = error
            elif os.path.lexists(candidate) and error.errno == errno.ENOENT:
                refused = OSError(errno.ENOEXEC, "its interpreter or loader is not in the container", candidate)
    if refused is None:
        where = "" if "/" in program else f" in PATH ({environment['PATH']})"
        raise ProgramNotFound(
            f"{program}: not found in the container{where}", step="exec", errno=errno.ENOENT, path=program
        )
    raise NotExecutable(
        f"{program}: cannot be executed: {refused.strerror}", step="exec", errno=refused.errno or 0, path=program
    )
