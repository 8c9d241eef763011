"""Where files of an archive or a layout are written to: a tar stream, or a directory."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator
from typing import Protocol

from pycore.errors import Conflict, PycoreError
from pycore.linux import libc, rmtree
from pycore.linux.newfile import new_file
from pycore.linux.tarheader import header
from pycore.linux.tarstream import BLOCK, Entry, Kind

from pycore_images.archives.aside import write_all
from pycore_images.archives.files import Directory, has, read
from pycore_images.archives.layout import INDEX_FILE, LAYOUT_FILE
from pycore_images.archives.source import BLOBS
from pycore_images.content import MAX_DOCUMENT, Stream

_CHUNK = 1 << 20
_RECORD = 20 * BLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Target(Protocol):
    """Takes files one after the other."""

    def has(self, name: str, size: int) -> bool:
        """Whether it has that file from before."""
        ...

    def put(self, name: str, size: int, stream: Stream) -> None:
        """Take a file. What ``stream`` raises at its end, that it is not what it should be, leaves no file."""
        ...

    def before(self) -> bytes:
        """The index that is there from before; empty where there is none."""
        ...


class TarTarget:
    """A tar stream: of the same files the same bytes, whoever writes them, and when."""

    def __init__(self, fd: int, name: str = "the archive") -> None:
        self._fd, self._name = fd, name
        self._written = 0

    def has(self, name: str, size: int) -> bool:
        return False

    def before(self) -> bytes:
        return b""

    def directory(self, name: str) -> None:
        """Some who unpack archives do not make the directories that are left out."""
        self._write(header(Entry(name, Kind.DIRECTORY, 0o755, 0, 0, 0, 0), 0))

    def put(self, name: str, size: int, stream: Stream) -> None:
        self._write(header(Entry(name, Kind.FILE, 0o644, 0, 0, size, 0), size))
        while chunk := stream.read(_CHUNK):
            self._write(chunk)
        self._write(bytes(-size % BLOCK))

    def end(self) -> None:
        """Write the end mark; the whole is a multiple of what tapes take at once, as it is for tar(1)."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._written % _RECORD))

    def _write(self, data: bytes) -> None:
        with _named(self._name):
            self._written += write_all(self._fd, data)


class DirectoryTarget:
    """A directory with a layout, perhaps with images in it already. Files come to their places whole."""

    def __init__(self, files: Directory, root: int, name: str) -> None:
        self._files, self._root, self._name = files, root, name

    def has(self, name: str, size: int) -> bool:
        return has(self._files, name) and self._files.size(name) == size

    def before(self) -> bytes:
        return read(self._files, INDEX_FILE, MAX_DOCUMENT) if has(self._files, INDEX_FILE) else b""

    def put(self, name: str, size: int, stream: Stream) -> None:
        head, _, base = name.rpartition("/")
        directory = libc.openat2(self._root, head or ".", os.O_RDONLY | os.O_DIRECTORY, follow=False)
        part = f".{secrets.token_hex(16)}"
        try:
            fd = os.open(part, _NEW, 0o644, dir_fd=directory)
            try:
                while chunk := stream.read(_CHUNK):
                    with _named(self._name):
                        write_all(fd, chunk)
                os.fdatasync(fd)
            finally:
                os.close(fd)
            os.rename(part, base, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=directory)
            os.close(directory)


@contextlib.contextmanager
def tar_stream(fd: int, name: str = "the archive") -> Generator[TarTarget, None, None]:
    """An archive into a descriptor; without an end mark where it was broken off. ``name`` is for messages."""
    target = TarTarget(fd, name)
    for directory in ("blobs", BLOBS.rstrip("/")):
        target.directory(directory)
    yield target
    target.end()


@contextlib.contextmanager
def tar_file(path: str) -> Generator[TarTarget, None, None]:
    """An archive as a file, as :func:`pycore.linux.newfile.new_file` makes it. Raises OSError, PycoreError."""
    if os.path.isdir(path):
        raise PycoreError(f"{path} is a directory", hint="a directory gets a layout: --format oci-dir")
    with new_file(path) as fd, tar_stream(fd, path) as target:
        yield target


@contextlib.contextmanager
def layout_directory(path: str) -> Generator[DirectoryTarget, None, None]:
    """A layout as a directory: a new one, of which nobody sees a part, or one that gets something more.

    Raises OSError, Conflict where something else is there.
    """
    if os.path.lexists(os.path.join(path, LAYOUT_FILE)):
        with _directory(path, path) as target:
            yield target
        return
    if os.path.lexists(path) and (not os.path.isdir(path) or os.listdir(path)):
        raise Conflict(f"{path} is there already, and is no image layout")
    path = os.path.realpath(path)
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{secrets.token_hex(8)}")
    os.mkdir(part, 0o700)
    try:
        os.makedirs(os.path.join(part, BLOBS))
        with _directory(part, path) as target:
            yield target
        os.rename(part, path)
    except BaseException:
        rmtree.remove(part)
        raise


@contextlib.contextmanager
def _named(path: str) -> Generator[None, None, None]:
    """An OSError of a descriptor tells what it is of; that of a pipe which nobody reads goes as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = path
        raise


@contextlib.contextmanager
def _directory(path: str, name: str) -> Generator[DirectoryTarget, None, None]:
    with contextlib.closing(Directory(path)) as files:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield DirectoryTarget(files, root, name)
        finally:
            os.close(root)
