"""A layer unpacked while it comes in: one thread decompresses it and takes its digest, one makes its files.

What it becomes is a directory as overlayfs lays it over others: a whiteout is a character device 0, 0, and what hides
all below it says so in an attribute. Owners are those of the archive. A directory that the layer does not name, but has
something in, is root's and open to all, as there is nothing to say otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pycore.linux import rmtree, tarstream
from pycore.linux.compression import Plain, decompressed
from pycore.linux.tarstream import Content, Entry, Kind
from pycore.linux.untar import WHITEOUT, Tree, path_of

from pycore_images.content import Damaged
from pycore_images.pipe import Broken, Pipe
from pycore_images.recipe import Recording

_CHUNK = 1 << 20
_MAX_NAME = 200
"""Characters of a name that are shown."""


class Unpacking:
    """A layer that is being unpacked to a new directory, which is removed again unless :meth:`finish` is reached."""

    def __init__(self, tree: Path, recipe: Path | None = None) -> None:
        """``recipe`` is where it is written how to make the archive of the tree again. It is not there in the end where
        that cannot be.
        """
        self._tree, self._recipe = tree, recipe
        self._raw, self._plain = Pipe(), Pipe()
        self._digest: str | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._carefully, args=(work,), name=f"pycore-layer-{name}", daemon=True)
            for name, work in (("decompress", self._decompress), ("unpack", self._unpack))
        ]

    def __enter__(self) -> Self:
        self._tree.mkdir(mode=0o755)
        os.chmod(self._tree, 0o755)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._give_up()
            self._join()
            rmtree.remove(str(self._tree))

    def feed(self, data: bytes) -> None:
        """A piece of the layer as it comes. Raises what :meth:`finish` raises."""
        try:
            self._raw.put(data)
        except Broken:
            self._join()
            self._raise()

    def finish(self, digest: str) -> str:
        """Wait for the last file to be made. The diff id, when all that was fed has this digest.

        Raises Damaged, also for what is beyond measure, or OSError for what the file system refuses.
        """
        self._raw.end()
        self._join()
        self._raise()
        return self._digest or digest

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _give_up(self) -> None:
        self._raw.give_up()
        self._plain.give_up()

    def _carefully(self, work: Callable[[], None]) -> None:
        """The first error is the one that counts; the other thread and whoever feeds us then end, too."""
        try:
            work()
        except Broken:
            pass
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
            self._give_up()

    def _decompress(self) -> None:
        try:
            stream = decompressed(self._raw)
            digest = None if isinstance(stream, Plain) else hashlib.sha256()
            while data := stream.read(_CHUNK):
                if digest is not None:
                    digest.update(data)
                self._plain.put(data)
            self._digest = f"sha256:{digest.hexdigest()}" if digest is not None else None
        except tarstream.DAMAGED as error:
            raise Damaged(f"it cannot be decompressed: {error}") from error
        self._plain.end()

    def _unpack(self) -> None:
        root = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with Tree(root, layer=True) as tree, contextlib.ExitStack() as stack:
                recording = stack.enter_context(Recording(self._plain, self._recipe)) if self._recipe else None
                for content, entry in tarstream.members(recording or self._plain, compressed=False, end_mark=False):
                    if recording:
                        _leave_out(recording, content, entry)
                    tree.add(content, entry)
                tree.finish()
            if self._recipe and tree.replaced:
                self._recipe.unlink()
        except tarstream.DAMAGED as error:
            raise Damaged(f"it is no sound tar archive: {_short(error or type(error).__name__)}") from error
        except tarstream.Refused as error:
            raise Damaged(f"it is refused: {error}") from error
        except OSError as error:
            name = f": {_short(repr(error.filename))}" if error.filename else ""
            raise OSError(error.errno, f"it cannot be unpacked: {error.strerror}{name}") from error
        finally:
            os.close(root)


def _leave_out(recording: Recording, content: Content, entry: Entry) -> None:
    """A file's content is kept as the file; what is only a part of it is kept as it came."""
    if entry.kind is Kind.FILE and content.is_whole(entry.size) and WHITEOUT not in entry.name:
        recording.leave_out(content.place, entry.size, path_of(entry.name))


def _short(words: object) -> str:
    text = str(words)
    return text if len(text) <= _MAX_NAME else f"{text[:_MAX_NAME]}..."
