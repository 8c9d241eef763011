"""An uncompressed layer that is kept once: its files as they are unpacked, and a recipe that makes the archive of
them again.

The recipe has every byte of the archive that is no file's content, and says between them whose content goes there. It
is written while the layer is unpacked, and holds as long as no file that it names is changed or removed; so it is given
up where an archive itself does that, and whoever makes the archive anew digests it.

The file is compressed with gzip. It is a row of steps: three numbers (how many bytes follow, how long the file is whose
content comes after them, how long its name is), the bytes, the name. A step without a name is of bytes alone.
"""

from __future__ import annotations

import gzip
import importlib
import os
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pycore.linux import libc
from pycore.linux.compression import Readable

from pycore_images.content import Damaged

_STEP = struct.Struct("<IQI")
_CHUNK = 1 << 20
_MAX_NAME = 1 << 20
_LEAST = 512
"""Bytes of a file that is worth a step: opening one costs more than it takes among the headers."""
_LEVEL = 1


class Recording:
    """A plain archive that is read through this, while the recipe of it is written to a new file."""

    def __init__(self, archive: Readable, path: Path) -> None:
        isal: Any = importlib.import_module("isal.igzip")  # it is typed in part only
        self._archive = archive
        self._file: Any = isal.open(path, "xb", compresslevel=_LEVEL)
        self._waiting = bytearray()
        self._chunk = memoryview(b"")
        self._begin = self._end = 0
        """Where in the archive the chunk is."""
        self._through = 0
        """Up to where all is in the recipe, which can be in a content that is still to come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._keep(self._end)
            self._write()
        self._file.close()

    def read(self, size: int, /) -> bytes:
        """The next bytes; those before them have been looked at, and are no file's content unless it was said."""
        self._keep(self._end)
        data = self._archive.read(size)
        self._chunk = memoryview(data)
        self._begin, self._end = self._end, self._end + len(data)
        return data

    def leave_out(self, place: int, size: int, path: str) -> None:
        """From this place on comes the content of a file, which is about to be unpacked there."""
        if path and size >= _LEAST:
            self._keep(place, size, os.fsencode(path))

    def _keep(self, until: int, size: int = 0, name: bytes = b"") -> None:
        data = self._chunk[self._through - self._begin : until - self._begin] if until > self._through else b""
        if data or name:
            self._waiting += _STEP.pack(len(data), size, len(name))
            self._waiting += data
            self._waiting += name
            self._through = max(self._through, until) + size
        if len(self._waiting) >= _CHUNK:
            self._write()

    def _write(self) -> None:
        self._file.write(bytes(self._waiting))
        self._waiting.clear()


def remade(recipe: Path, tree: Path) -> Iterator[bytes]:
    """The archive, piece by piece. Raises Damaged where the recipe is not sound, or a file not as long as it was."""
    isal: Any = importlib.import_module("isal.igzip")
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with isal.open(recipe, "rb") as file:
            while head := _exactly(file, _STEP.size, at_end=True):
                length, size, named = _STEP.unpack(head)
                if length > _CHUNK or named > _MAX_NAME:
                    raise Damaged(f"{recipe} is damaged")
                yield _exactly(file, length)
                if named:
                    yield from _content(root, os.fsdecode(_exactly(file, named)), size)
    except (EOFError, gzip.BadGzipFile, importlib.import_module("isal.isal_zlib").error) as error:
        raise Damaged(f"{recipe} is damaged: {error}") from error
    finally:
        os.close(root)


def _exactly(file: Readable, count: int, at_end: bool = False) -> bytes:
    data = file.read(count)
    if len(data) != count and not (at_end and not data):
        raise EOFError("it ends too early")
    return data


def _content(root: int, path: str, size: int) -> Generator[bytes, None, None]:
    """Of a file of the tree, found as it was when it was unpacked."""
    try:
        fd = libc.openat2(root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise Damaged(f"{path!r} has been removed since it was unpacked") from None
    try:
        while size:
            data = os.read(fd, min(size, _CHUNK))
            if not data:
                raise Damaged(f"{path!r} has become shorter since it was unpacked")
            size -= len(data)
            yield data
    finally:
        os.close(fd)
