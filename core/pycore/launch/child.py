"""Inside: from clone to exec. What a process of a container does before it becomes the program.

It says nothing while all goes well, but that it has entered. An error goes back over its channel whole; end
of file on that channel, which is close-on-exec, means that the program runs.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.machinery
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pycore.errors import NotExecutable, ProgramNotFound, PycoreError, StartError
from pycore.launch import inside, limits, terminal
from pycore.launch.channel import Channel
from pycore.launch.request import DEFAULT_PATH, Request
from pycore.linux import libc
from pycore.ops import Context

_unused: list[object] = []

Function = Callable[..., "int | None"]


def become(
    request: Request, ctx: Context, channel: Channel, stdio: Sequence[int], maps: bool, function: Function | None
) -> NoReturn:
    """Turn this process, freshly cloned into new namespaces, into the container's program. Never returns.

    ``maps`` says whether it has to wait for its id maps.
    """

    def arrive() -> None:
        inside.take_hold(request, ctx)
        if maps:
            _expect(channel, "mapped")
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        _import_nothing_more()
        inside.enter(request, ctx)

    _live(request, ctx, channel, stdio, function, arrive)


def join(
    request: Request,
    ctx: Context,
    channel: Channel,
    stdio: Sequence[int],
    target: tuple[int, int],
    function: Function | None,
) -> NoReturn:
    """Turn this process into one more of a container that runs. Never returns.

    ``target`` are a pidfd of its first process and the namespaces to join, as CLONE_NEW* flags.
    """
    ctx.held["target"] = target[0]

    def arrive() -> None:
        _import_nothing_more()
        inside.join(request, ctx, *target)

    _live(request, ctx, channel, stdio, function, arrive)


def _live(
    request: Request,
    ctx: Context,
    channel: Channel,
    stdio: Sequence[int],
    function: Function | None,
    arrive: Callable[[], None],
) -> NoReturn:
    status = 125
    try:
        gc.disable()
        _start_anew(request, ctx, channel, stdio)
        arrive()
        joined = "target" in ctx.held  # nothing on the host waits to be done for it: it goes on by itself
        if request.terminal or not joined:
            _say_entered(request, ctx, channel)
        if not joined:
            _expect(channel, "go")
        _let_go_of_the_host()
        inside.confine(request, ctx)
        if function is None:
            _execute(request.name, request.argv, ctx)
        status = _call(function, request, channel)
    except PycoreError as error:
        status = error.exit_status
        _report(channel, error)
    except BaseException as error:  # whatever it is, the other side must hear of it
        _report(channel, StartError(f"{request.name}: {type(error).__name__}: {error}"))
    os._exit(status)


def _start_anew(request: Request, ctx: Context, channel: Channel, stdio: Sequence[int]) -> None:
    """A session of its own, its own streams, and none of the spawner's descriptors.

    They would not outlive exec, but a created container may wait for that for days: with the spawner's end of
    its control channel, whose closing says that the spawner is dead, and with other containers' streams.
    """
    os.setsid()
    for target, fd in enumerate(stdio):
        os.dup2(fd, target)
    libc.close_all_but((channel.fileno(), *ctx.held.values()))


def _say_entered(request: Request, ctx: Context, channel: Channel) -> None:
    """We are inside. A terminal can only be opened there; its other end goes to whoever asked for the process."""
    if not request.terminal:
        channel.send({"entered": True})
        return
    master = terminal.open_terminal(request.name, *request.window)
    if "target" not in ctx.held:
        terminal.show_as_console(ctx.kernel)
    ctx.terminal = 0
    channel.send({"entered": True}, [master])
    os.close(master)


def _import_nothing_more() -> None:
    """From here on the container's file system is in sight, and no code may come from it.

    Encodings, say, are imported when a name of theirs is met: an image with a module of that name in the right
    place would have it run with all the powers that the process still has. Other lists are put in the place of
    those that are there, which are kept: emptying them would free much, and copy every page that it is on.
    """
    _unused.extend((sys.meta_path, sys.path, sys.path_hooks, sys.path_importer_cache))
    sys.meta_path, sys.path, sys.path_hooks = [importlib.machinery.BuiltinImporter], [], []
    sys.path_importer_cache = {}


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


def _let_go_of_the_host() -> None:
    """Nothing of the host may be open or set beyond here: descriptors (CVE-2024-21626), signals, umask.

    The spawner ignores no signal, it handles them: exec resets those (execve(2)).
    """
    libc.close_on_exec(3)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    limits.restore_open_files()


def _call(function: Function, request: Request, channel: Channel) -> int:
    """Be the program ourselves: no exec resets signal handlers and closes descriptors for us.

    What goes wrong from here on is the function's own affair, and said as a program says it.
    """
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    channel.socket.detach()
    libc.close_all_but(())
    try:
        return function(*request.argv) or 0
    except OSError as error:
        path = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        text = f"{path}{error.strerror or error}"
    except PycoreError as error:
        text = error.message
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        os.write(2, f"{request.name}: {text}\n".encode("utf-8", "replace"))
    return 1


def _execute(name: str, argv: tuple[str, ...], ctx: Context) -> NoReturn:
    """execve(2), with the program looked up in the container's PATH as a shell does."""
    program, environment = argv[0], ctx.environment
    environment.setdefault("PATH", DEFAULT_PATH)
    if "/" in program:
        candidates = [program]
    else:
        candidates = [f"{directory or '.'}/{program}" for directory in environment["PATH"].split(":")]
    refused: OSError | None = None
    # A failing execve(2) costs more than a look; where nothing is to be seen, it says best what is wrong.
    there = [candidate for candidate in candidates if os.access(candidate, os.F_OK)]
    for candidate in there or candidates:
        try:
            if ctx.init:
                _execute_init(*ctx.init, candidate, argv, environment)
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


def _execute_init(
    init: int, words: tuple[str, ...], program: str, argv: tuple[str, ...], environment: dict[str, str]
) -> NoReturn:
    """execveat(2) of an init that then looks up the program itself. Raises OSError as if the program were executed."""
    if not stat.S_ISREG(os.stat(program).st_mode) or not os.access(program, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), program)
    try:
        os.execve(init, (*words, *argv), environment)
    except OSError as error:
        what = "its loader is not in the container" if error.errno == errno.ENOENT else error.strerror
        raise OSError(errno.ENOEXEC, f"the init cannot be executed: {what}", program) from error
