"""What a tree takes on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass

from pycore.linux import libc

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True)
class Usage:
    """Bytes on the disk, and files of any kind."""

    bytes: int = 0
    inodes: int = 0


def measure(path: str) -> Usage:
    """What a directory takes with all that is in it, a file with several names once; nothing, where there is none.

    What changes or goes meanwhile is counted or not, and what lies too deep for a path is not.
    """
    try:
        root = os.open(path, _DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Usage()
    try:
        return _walk(root)
    finally:
        os.close(root)


def _walk(root: int) -> Usage:
    size, count = 0, 0
    seen: set[tuple[int, int]] = set()
    waiting = ["."]
    while waiting:
        here = waiting.pop()
        with contextlib.suppress(OSError), _opened(root, here) as directory, os.scandir(directory) as entries:
            size, count = size + os.fstat(directory).st_blocks * 512, count + 1
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{here}/{entry.name}")
                    continue
                with contextlib.suppress(FileNotFoundError):
                    info = entry.stat(follow_symlinks=False)
                    key = (info.st_dev, info.st_ino)
                    if key not in seen:
                        size, count = size + info.st_blocks * 512, count + 1
                    if info.st_nlink > 1:
                        seen.add(key)
    return Usage(size, count)


@contextlib.contextmanager
def _opened(root: int, path: str) -> Generator[int, None, None]:
    fd = libc.openat2(root, path, _DIRECTORY, follow=False)
    try:
        yield fd
    finally:
        os.close(fd)
