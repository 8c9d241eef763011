"""Removing a tree of any depth.

A container may nest directories deeper than a recursive removal has stack or descriptors for, and its layer
would then stay for ever. Here what lies too deep is first moved up to the top.
"""

from __future__ import annotations

import os

DEPTH = 32
"""How deep to go down at once: one descriptor is open for each level."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Remove a directory and all below it; links are removed, not followed.

    Raises OSError: FileNotFoundError where there is none, EBUSY where something is mounted inside.
    """
    top = os.open(path, _DIRECTORY)
    try:
        while _empty(top, top, 0):
            pass
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(directory: int, top: int, depth: int) -> bool:
    """Remove what is in a directory. Whether something was too deep and is now in ``top``, for another round."""
    moved = False
    for name in _strip(directory):
        if depth == DEPTH:
            os.rename(name, os.urandom(16).hex(), src_dir_fd=directory, dst_dir_fd=top)
            moved = True
            continue
        inner = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            moved |= _empty(inner, top, depth + 1)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=directory)
    return moved


def _strip(directory: int) -> list[str]:
    """Remove all but directories from a directory; the names of those that are left."""
    left: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=directory)
    return left
