"""Removing a tree of any depth.

A container may nest directories deeper than a recursive removal has stack or descriptors for, and its layer
would then stay for ever. Here a directory found inside another is first moved up to the top, so the depth
never exceeds two, and two descriptors do.
"""

from __future__ import annotations

import os
import secrets

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: str) -> None:
    """Remove a directory and all below it; links are removed, not followed.

    Raises OSError: FileNotFoundError where there is none, EBUSY where something is mounted inside.
    """
    top = os.open(path, _DIRECTORY)
    try:
        prefix = secrets.token_hex(8)
        counter = 0
        pending = _strip(top)
        while pending:
            name = pending.pop()
            inner = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                for child in _strip(inner):
                    counter += 1
                    moved = f"{prefix}.{counter}"
                    os.rename(child, moved, src_dir_fd=inner, dst_dir_fd=top)
                    pending.append(moved)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(top)
    os.rmdir(path)


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
