"""A file that somebody asks for by its path: there when it is whole and on the disk, and not before."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator

from pycore.errors import PycoreError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def new_file(path: str) -> Generator[int, None, None]:
    """A descriptor to write to. The file is its owner's alone, and takes the place of one that is there.

    What is no regular file, a device or a pipe, is written to as it is. Raises OSError, PycoreError for a directory.
    """
    if os.path.isdir(path):
        raise PycoreError(f"{path} is a directory")
    if os.path.lexists(path) and not os.path.isfile(path):
        fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    path = os.path.realpath(path)
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{secrets.token_hex(8)}")
    try:
        fd = os.open(part, _NEW, 0o600)
    except OSError as error:
        error.filename = path
        raise
    try:
        try:
            yield fd
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise
