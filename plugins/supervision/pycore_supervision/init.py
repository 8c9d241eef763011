"""``init``: a real init as the container's first process, from the dumb-init wheel."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pycore.errors import Problem
from pycore.hookspecs import Host, Requirement, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Change, Container, Section, setting

from pycore_supervision.ops.init import Init

DISTRIBUTION = "dumb-init"
_MEND = "pip install dumb-init"


class FirstProcess(Section):
    """``init``."""

    table = "container.*"

    init: bool = setting(
        False,
        doc="Have the program run by a small init (dumb-init) that hands signals on to it and reaps the processes that "
        "it leaves behind. A program that a signal ends then ends with the status 128 and the signal's number.",
        change=Change.RESTART,
        flags=("--init",),
    )


@functools.cache
def program() -> str:
    """Where the wheel has put its static program; an empty string where it is not installed.

    Not one of the host's own in PATH: that may need a loader and libraries that are not in the container.
    """
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = [str(file.locate()) for file in files(DISTRIBUTION) or () if file.name == DISTRIBUTION]
    except PackageNotFoundError:
        return ""
    beside = str(Path(sys.executable).with_name(DISTRIBUTION))
    return next((os.path.realpath(path) for path in (*installed, beside) if os.access(path, os.X_OK)), "")


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """``init``."""
    return [FirstProcess]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """The wheel with the program."""
    met = bool(program()) and look.exists(program())
    yield Requirement("dumb-init", met, "containers with init = true", "" if met else _MEND)


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """Take the init along."""
    if not container[FirstProcess].init:
        return
    if program() and host.look.exists(program()):
        yield Init(program())
    else:
        host.problems.append(Problem(("init",), "the dumb-init package is not installed beside pycore", hint=_MEND))
