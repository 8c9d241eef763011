"""A large layer unpacked by a process of its own, so that several are unpacked at once, on as many processors.

Threads of one interpreter take turns; and whoever has a supervisor do something meanwhile would wait for them. What the
process does is :class:`pycore_images.layers.Unpacking`. It gets the layer by one pipe, and says by another what came of
it; it dies with the thread that started it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pycore.errors import PycoreError
from pycore.launch import interpreter
from pycore.linux import libc, rmtree

from pycore_images.archives.aside import write_all
from pycore_images.content import Damaged
from pycore_images.layers import Unpacking

_CHUNK = 1 << 20
_MAX_ANSWER = 1 << 16


class Unpacker:
    """Does what Unpacking does, in the same words."""

    def __init__(self, tree: Path, recipe: Path | None = None) -> None:
        self._tree, self._recipe = tree, recipe
        self._layer = self._answer = self._pid = -1

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as theirs:
            layer, self._layer = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, layer)
            self._answer, answer = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, answer)
            with contextlib.suppress(PermissionError):  # it is only faster
                fcntl.fcntl(layer, fcntl.F_SETPIPE_SZ, _CHUNK)
            words = [str(self._tree), str(self._recipe or ""), str(os.getpid())]
            self._pid = interpreter.start(__name__, words, [layer, answer], {}, -1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid > 0:
            os.kill(self._pid, signal.SIGKILL)  # ours, and not waited for yet
        self._end()
        os.close(self._answer)
        if kind is not None:
            with contextlib.suppress(FileNotFoundError):
                rmtree.remove(str(self._tree))

    def feed(self, data: bytes) -> None:
        """A piece of the layer as it comes. Raises what :meth:`finish` raises."""
        try:
            write_all(self._layer, data)
        except BrokenPipeError:
            self.finish("")

    def finish(self, digest: str) -> str:
        """Wait for the last file to be made. The diff id, when all that was fed has this digest.

        Raises Damaged, also for what is beyond measure, or OSError for what the file system refuses.
        """
        os.close(self._layer)
        self._layer = -1
        data = b""
        while piece := os.read(self._answer, _MAX_ANSWER):
            data += piece
        self._end()
        if not data:
            raise PycoreError("it is not unpacked: the process that did it has been killed", hint="by lack of memory?")
        answer = json.loads(data)
        if failed := answer.get("error"):
            raise _error(failed, answer)
        return str(answer["diff_id"]) or digest

    def _end(self) -> None:
        if self._layer >= 0:
            os.close(self._layer)
            self._layer = -1
        if self._pid > 0:
            os.waitpid(self._pid, 0)
            self._pid = -1


def _error(kind: str, answer: dict[str, Any]) -> Exception:
    if kind == "OSError":
        return OSError(answer["errno"], answer["message"])
    return (Damaged if kind == "Damaged" else PycoreError)(answer["message"], hint=answer["hint"])


# -- in the process --------------------------------------------------------------------------------------


def main() -> None:
    """Unpack what comes by the first descriptor; to the second goes what came of it."""
    tree, recipe, parent = sys.argv[1:]
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return  # it had died before we asked
    answer = json.dumps(_unpacked(Path(tree), Path(recipe) if recipe else None))
    write_all(interpreter.FIRST + 1, answer.encode())


def _unpacked(tree: Path, recipe: Path | None) -> dict[str, Any]:
    try:
        with Unpacking(tree, recipe) as unpacking:
            while data := os.read(interpreter.FIRST, _CHUNK):
                unpacking.feed(data)
            return {"diff_id": unpacking.finish("")}
    except PycoreError as error:
        kind = "Damaged" if isinstance(error, Damaged) else "PycoreError"
        return {"error": kind, "message": error.message, "hint": error.hint}
    except OSError as error:
        return {"error": "OSError", "errno": error.errno or errno.EIO, "message": error.strerror or str(error)}
