"""Content kept for a moment, where the store is: in a file without a name, which goes with whoever has it open."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator

from pycore.errors import PycoreError

from pycore_images.store import Store


class Aside:
    """Such a file."""

    def __init__(self, fd: int, where: str) -> None:
        self.fd = fd
        self._where = where

    def write(self, data: bytes) -> int:
        """All of it; how much that is. Raises PycoreError where the disk is full."""
        try:
            return write_all(self.fd, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            hint = "make room: `pycore image prune`, `pycore image df`"
            raise PycoreError(f"{self._where}: {error.strerror}", hint=hint) from error


@contextlib.contextmanager
def aside(store: Store) -> Generator[Aside, None, None]:
    """One for the length of a with block."""
    store.prepare()
    fd = os.open(store.ingest, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        yield Aside(fd, str(store.root))
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> int:
    """All of it, however little the kernel takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)
