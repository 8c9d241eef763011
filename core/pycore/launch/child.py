"""Inside: from clone to exec. What the container's process does before it becomes the program.

It says nothing while all goes well. An error goes back over its channel whole; end of file on that
channel, which is close-on-exec, means that the program runs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import signal
from collections.abc import Sequence
from typing import NoReturn

from pycore.errors import NotExecutable, ProgramNotFound, PycoreError, StartError
from pycore.launch import inside
from pycore.launch.channel import Channel
from pycore.launch.request import DEFAULT_PATH, Request
from pycore.linux import libc
from pycore.ops import Context


def become(request: Request, ctx: Context, channel: Channel, stdio: Sequence[int], wait_for_maps: bool) -> NoReturn:
    """Turn this freshly cloned process into the container's program. Never returns."""
    status = 125
    try:
        gc.disable()
        os.setsid()
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        inside.take_hold(request, ctx)
        if wait_for_maps:
            _expect(channel, "mapped")
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        inside.enter(request, ctx)
        _expect(channel, "go")
        _let_go_of_the_host()
        inside.confine(request, ctx)
        _execute(request.name, request.argv, ctx.environment)
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


@functools.cache
def ignored_signals() -> tuple[int, ...]:
    """The signals that this process ignores; asked for by the spawner, so that its children know."""
    return tuple(number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN)


def _let_go_of_the_host() -> None:
    """Nothing of the host may be open or set beyond here: descriptors (CVE-2024-21626), signals, umask."""
    libc.close_on_exec(3)
    for number in ignored_signals():  # those with a handler are reset by exec (execve(2))
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)


def _execute(name: str, argv: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
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
            f"{name}: {program}: not found in the container{where}", step="exec", errno=errno.ENOENT, path=program
        )
    message = f"{name}: {program}: cannot be executed: {refused.strerror}"
    raise NotExecutable(message, step="exec", errno=refused.errno or 0, path=program)
