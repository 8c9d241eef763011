"""Files by their names, in a directory or in an archive: the two are read alike."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from typing import Protocol

from pycore.errors import NotFound
from pycore.linux import libc

from pycore_images.content import Damaged, Stream

_CHUNK = 1 << 20


class Files(Protocol):
    """Regular files. Only names that are asked for are ever used; they have no leading slash. For many threads."""

    @property
    def name(self) -> str:
        """Of the whole, for messages."""
        ...

    def size(self, name: str) -> int:
        """Bytes. Raises NotFound, and Damaged for what is no regular file."""
        ...

    def open(self, name: str, offset: int = 0) -> contextlib.AbstractContextManager[Stream]:
        """From a place on. Raises like :meth:`size`."""
        ...


def has(files: Files, name: str) -> bool:
    """Whether there is such a file. Raises Damaged for what is no regular one."""
    try:
        files.size(name)
    except NotFound:
        return False
    return True


def read(files: Files, name: str, most: int) -> bytes:
    """A whole file. Raises NotFound, and Damaged where it is longer than ``most``."""
    if files.size(name) > most:
        raise Damaged(f"{name} in {files.name} is longer than {most} bytes")
    parts: list[bytes] = []
    with files.open(name) as stream:
        while most >= 0 and (part := stream.read(min(_CHUNK, most + 1))):
            parts.append(part)
            most -= len(part)
    return b"".join(parts)


class Segment:
    """Bytes of a file between two places, which others may read at the same time."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd, self._at, self._end = fd, start, end

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, max(0, min(size, self._end - self._at)), self._at)
        self._at += len(data)
        return data

    def skip(self, count: int, /) -> None:
        """Go past so many bytes. Raises EOFError where there are fewer."""
        if count > self._end - self._at:
            raise EOFError("unexpected end of data")
        self._at += count


class Directory:
    """Files below a directory; no link leads out of it, and nothing but a regular file is opened."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def size(self, name: str) -> int:
        with self._opened(name) as fd:
            return os.fstat(fd).st_size

    @contextlib.contextmanager
    def open(self, name: str, offset: int = 0) -> Generator[Stream, None, None]:
        with self._opened(name) as fd:
            yield Segment(fd, offset, os.fstat(fd).st_size)

    def close(self) -> None:
        """No more."""
        os.close(self._fd)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Generator[int, None, None]:
        try:
            # A pipe would make us wait, a device do something.
            fd = libc.openat2(self._fd, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"{self.name} has no {name}") from None
            raise Damaged(f"{name} in {self.name} cannot be opened: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Damaged(f"{name} in {self.name} is no regular file")
            yield fd
        finally:
            os.close(fd)
