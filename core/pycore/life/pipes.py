"""A program's standard streams, where nobody gives it any: pipes, of which we keep the other ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

from pycore.launch.launcher import Stdio
from pycore.logs import STDERR, STDOUT
from pycore.spec import Process

OUTPUTS = {"stdout": STDOUT, "stderr": STDERR}
"""Kept ends that a log is made of, and the stream that each is."""
STDIN, TERMINAL = "stdin", "terminal"
"""Kept ends that are written to; a terminal's output is logged as well."""


@contextlib.contextmanager
def streams(given: Stdio | None, process: Process) -> Generator[Stdio, None, None]:
    """The program's streams: those given, or pipes and nothing, as the spec wants it.

    One that gets a terminal opens it later, inside.

    The kept ends are the caller's, the program's own are closed here; after a failure all are.
    """
    if given is not None:
        yield given
        return
    own: list[int] = []
    kept: dict[str, int] = {}
    try:
        stdin = _stdin(own, kept) if process.stdin_open and not process.tty else _null(own, os.O_RDONLY)
        stdout, stderr = (_null(own, os.O_WRONLY) if process.tty else _output(name, own, kept) for name in OUTPUTS)
        yield Stdio(stdin, stdout, stderr, kept)
    except BaseException:
        own += kept.values()
        raise
    finally:
        for fd in own:
            os.close(fd)


def _stdin(own: list[int], kept: dict[str, int]) -> int:
    read, kept[STDIN] = os.pipe2(os.O_CLOEXEC)
    own.append(read)
    return read


def _output(name: str, own: list[int], kept: dict[str, int]) -> int:
    kept[name], write = os.pipe2(os.O_CLOEXEC)
    own.append(write)
    return write


def _null(own: list[int], flags: int) -> int:
    fd = os.open(os.devnull, flags | os.O_CLOEXEC)
    own.append(fd)
    return fd
