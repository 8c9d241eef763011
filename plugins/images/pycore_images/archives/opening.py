"""An archive, a layout, or a stream of one, opened: which images are in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Generator

from pycore.errors import NotFound, PycoreError
from pycore.launch.archive import watched
from pycore.linux.compression import Unreadable, decompressed
from pycore.linux.tarstream import MAX_BYTES

from pycore_images.archives import docker, layout, legacy
from pycore_images.archives.aside import Aside, aside
from pycore_images.archives.files import Directory, Files
from pycore_images.archives.found import Found
from pycore_images.archives.tarfiles import TarFiles
from pycore_images.content import Damaged
from pycore_images.store import Store

_CHUNK = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")

Wait = Callable[[int], None]
"""Returns when a descriptor can be read, or raises to break off; called before each reading of what takes long."""


def at_once(_fd: int) -> None:
    """A :data:`Wait` for nobody who would break off."""


@contextlib.contextmanager
def opened(store: Store, path: str, wait: Wait = at_once) -> Generator[list[Found], None, None]:
    """The images of an archive or of a directory with a layout. Raises NotFound, Damaged, OSError."""
    with contextlib.ExitStack() as stack:
        try:
            # A pipe would make us wait, a device do something.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"{path}: there is no such file") from None
        stack.callback(os.close, fd)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            yield images(stack.enter_context(contextlib.closing(Directory(path))))
        elif not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PycoreError(f"{path} is neither a file nor a directory", hint="a stream is read from standard input")
        else:
            yield stack.enter_context(streamed(store, fd, path, wait))


@contextlib.contextmanager
def streamed(
    store: Store, fd: int, name: str = "standard input", wait: Wait = at_once
) -> Generator[list[Found], None, None]:
    """The images of an archive that a descriptor has: a file, which is read from its beginning, or a pipe."""
    with seekable(store, fd, name, wait) as file:
        yield images(TarFiles(file, name))


def images(files: Files) -> list[Found]:
    """Every image, of whatever form. Raises NotFound where there is none."""
    if layout.is_layout(files):
        found = layout.images(files)
        return docker.named(found, files) if docker.is_docker(files) else found
    if docker.is_docker(files):
        return docker.images(files)
    if legacy.is_legacy(files):
        return legacy.images(files)
    hint = "it has neither index.json nor manifest.json; `pycore import` makes an image of plain files"
    raise NotFound(f"{files.name} has no image in it", hint=hint)


@contextlib.contextmanager
def seekable(store: Store, fd: int, name: str, wait: Wait = at_once) -> Generator[int, None, None]:
    """The same, uncompressed, and readable in any order: a file as it is, else what has been written aside."""
    if stat.S_ISREG(os.fstat(fd).st_mode) and not os.pread(fd, 6, 0).startswith(_COMPRESSED):
        yield fd
        return
    with aside(store) as copy:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.lseek(fd, 0, os.SEEK_SET)
        _spool(fd, copy, name, wait)
        yield copy.fd


def _spool(fd: int, copy: Aside, name: str, wait: Wait) -> None:
    """Write aside what a descriptor has, decompressed. Raises Damaged."""
    written = 0
    try:
        stream = decompressed(watched(fd, wait))
        while chunk := stream.read(_CHUNK):
            written += len(chunk)
            if written > MAX_BYTES:
                raise Damaged(f"{name} is larger than {MAX_BYTES >> 30} GiB when unpacked")
            copy.write(chunk)
    except Unreadable as error:
        raise Damaged(f"{name} is damaged: {error}") from error
