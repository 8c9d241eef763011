"""The verb cp: files in and out of a container, by Docker's rules."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

from pycore.cli.parser import Verb
from pycore.cli.session import Interrupted, Session
from pycore.engine import Call, Engine
from pycore.errors import PycoreError, UsageError
from pycore.launch import archive
from pycore.launch.launcher import Stdio
from pycore.life.execution import Execution
from pycore.linux.packing import Packer

_INSIDE = "pycore.launch.archive:"
_WORDS = 4096
"""Bytes of what the end inside says that are kept: its end."""


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    parser = verb("cp", _cp, "copy files into a container, or out of one")
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners, and set-user-id bits with them")
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what SOURCE leads to, if it is a link")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say how much was copied")
    parser.add_argument("source", metavar="SOURCE", help="CONTAINER:PATH, PATH, or - for a tar stream")
    parser.add_argument("destination", metavar="DESTINATION", help="likewise, the other way round")


class _Place(NamedTuple):
    """One end of a copy: a path of a container, or of this host where ``container`` is empty."""

    container: str
    path: str


def _place(session: Session, word: str) -> _Place:
    """A path of the host begins with a slash or a dot, or has no colon in it."""
    container, colon, path = word.partition(":")
    if not colon or word.startswith(("/", ".")) or not container:
        return _Place("", word if word == "-" else os.path.join(session.directory, word))
    return _Place(container, path if path.startswith("/") else f"/{path}")


def _cp(session: Session, arguments: argparse.Namespace) -> int:
    source, destination = (_place(session, word) for word in (arguments.source, arguments.destination))
    if bool(source.container) == bool(destination.container):
        raise UsageError("one of SOURCE and DESTINATION is in a container", hint="pycore cp web:/etc/hosts .")
    copy = _Copy(session, arguments.archive, arguments.follow_link)
    size = copy.out(source, destination.path) if source.container else copy.into(source.path, destination)
    if size is not None:
        if session.json:
            session.print_json({"bytes": size})
        elif not arguments.quiet:
            session.err(f"copied {size} bytes\n")
    return 0


def _base(path: str) -> str:
    """What the stream calls a source: a dot where its content is meant, and not itself."""
    if path.endswith(("/.", "/..")) or path.strip("/") in ("", ".", ".."):
        return "."
    return path.rstrip("/").rpartition("/")[2]


@dataclass
class _Copy:
    """A copy to be made."""

    session: Session
    archive: bool
    follow: bool

    def out(self, source: _Place, path: str) -> int | None:
        """From a container: what comes is taken for hostile. How many bytes; None for a stream."""
        words = (source.path, _base(source.path), "follow" if self.follow else "")
        with self.session.engine.files(source.container) as call:
            if path == "-":
                with _Inside(self.session, call, "pack", words, stdout=self.session.stdio[1]) as inside:
                    inside.wait()
                return None
            with _Inside(self.session, call, "pack", words) as inside:
                unpacker = archive.Unpacker(path, None if self.archive else (0, 0))
                inside.carry(lambda: unpacker.unpack(archive.watched(inside.ours, inside.wait_for)))
                return unpacker.size

    def into(self, path: str, destination: _Place) -> int | None:
        """Into a container: the end inside sees its root as the root, so no link leads out of it."""
        keep = "keep" if self.archive else ""
        with self.session.engine.files(destination.container) as call:
            if path == "-":
                words = (destination.path, keep)
                with _Inside(self.session, call, "unpack_into", words, stdin=self.session.stdio[0]) as inside:
                    inside.wait()
                return None
            with _Inside(self.session, call, "unpack", (destination.path, keep), writing=True) as inside:
                packer = Packer(inside.ours)
                left: list[str] = []
                inside.carry(lambda: left.extend(packer.pack(path, _base(path), self.follow)))
            for name in left:
                self.session.err(f"{name}: a device or a socket: left out\n")
            return packer.size


class _Inside:
    """The end of a copy that is in the container. Whatever happens, it has ended when the with block is left."""

    def __init__(
        self, session: Session, call: Call, function: str, words: tuple[str, ...], *,
        stdin: int = -1, stdout: int = -1, writing: bool = False,
    ) -> None:  # fmt: skip
        """``stdin``, ``stdout``: the client's own; else there is a pipe, of which ``ours`` is our end."""
        self._session, self._writing = session, writing
        self._own: list[int] = []
        self.ours = -1
        said, say = self._pipe()
        self._said = said
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            theirs = null
            if stdin < 0 and stdout < 0:
                read, write = self._pipe()
                self.ours, theirs = (write, read) if writing else (read, write)
            streams = Stdio(
                stdin if stdin >= 0 else theirs if writing else null,
                stdout if stdout >= 0 else null if writing else theirs,
                say,
            )
            try:
                self._execution: Execution = call(_INSIDE + function, words, streams)
            finally:
                for fd in {null, theirs, say}:
                    os.close(fd)
                    if fd in self._own:
                        self._own.remove(fd)
        except BaseException:
            self._close()
            raise

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._own += ends
        return ends

    def __enter__(self) -> _Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.engine.signal(self._execution, signal.SIGKILL)
        self._close()
        self._execution.exited.wait(10)
        self._execution.close()

    def _close(self) -> None:
        for fd in self._own:
            os.close(fd)
        self._own, self.ours = [], -1

    def _let_go(self) -> None:
        """The stream has come to its end, or nobody reads it any more."""
        if self.ours >= 0:
            self._own.remove(self.ours)
            os.close(self.ours)
            self.ours = -1

    def wait_for(self, fd: int) -> None:
        """Until there is something to read; raises Interrupted when the client does not want it any more."""
        watched = [fd, *self._session.hangups()]
        while True:
            ready, _, _ = select.select(watched, (), ())
            if len(watched) > 1 and self._session.gone():
                raise Interrupted
            if fd in ready:
                return

    def carry(self, act: Callable[[], None]) -> None:
        """Do our end, then wait for the other; of two failures the one where the stream comes from is the cause."""
        with self._interruptible():
            try:
                act()
            except (PycoreError, OSError) as error:
                self._let_go()
                status, text = self._end()
                ours = self._writing and not isinstance(error, BrokenPipeError)
                if text and status and status < 128 and not ours:
                    raise PycoreError(text) from error
                raise
            self._let_go()
            self.wait()

    @contextlib.contextmanager
    def _interruptible(self) -> Generator[None, None, None]:
        """While we write, nobody looks whether the client is there: a thread does, and ends the other side."""
        hangups = self._session.hangups()
        done, finish = os.pipe2(os.O_CLOEXEC)

        def watch() -> None:
            while True:
                ready, _, _ = select.select([done, *hangups], (), ())
                if done in ready:
                    return
                if self._session.gone():
                    self._session.engine.signal(self._execution, signal.SIGKILL)
                    return

        watching = threading.Thread(target=watch, name="pycore-cp", daemon=True)
        watching.start()
        try:
            yield
        finally:
            os.close(finish)
            watching.join()
            os.close(done)
        if self._session.gone():
            raise Interrupted

    def wait(self) -> None:
        """Wait for its end; raises PycoreError with what it said, if that was a failure."""
        status, text = self._end()
        if status:
            raise PycoreError(text or f"the copy ended with status {status}")
        if text:
            self._session.err(text + "\n")

    def _end(self) -> tuple[int | None, str]:
        """Its exit status, and what it said."""
        words = b""
        while True:
            self.wait_for(self._said)
            data = os.read(self._said, _WORDS)
            if not data:
                break
            words = (words + data)[-_WORDS:]
        return self._execution.wait(), words.decode("utf-8", "replace").strip()
