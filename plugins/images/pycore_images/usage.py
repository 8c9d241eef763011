"""How much of the disk something takes, and how many files it has."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pycore_images.store import Store

_NOTE = "usage"
"""What is written beside an unpacked layer, so that nobody has to walk through it again."""


@dataclass(frozen=True)
class Usage:
    """Space on the disk, and files."""

    bytes: int = 0
    files: int = 0


def layer_usage(store: Store, diff_id: str) -> Usage:
    """Of an unpacked layer; looked at once, then known. Raises FileNotFoundError where it is not here."""
    tree = store.layer_tree(diff_id)
    try:
        return Usage(**json.loads((tree.parent / _NOTE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        usage = tree_usage(tree)
        note_usage(tree.parent, usage)
        return usage


def note_usage(directory: Path, usage: Usage) -> None:
    """Write down what the tree in a layer's directory takes."""
    part = directory / f".{secrets.token_hex(8)}"
    part.write_text(json.dumps(asdict(usage)), encoding="ascii")
    os.rename(part, directory / _NOTE)


def tree_usage(directory: Path) -> Usage:
    """Of all that is in a directory, whose every file is counted once. Raises FileNotFoundError where there is none."""
    first = os.lstat(directory)
    size, seen = first.st_blocks * 512, {(first.st_dev, first.st_ino)}
    for found in _files(os.fspath(directory)):
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            size += found.st_blocks * 512
    return Usage(size, len(seen))


def _files(top: str) -> Iterator[os.stat_result]:
    """Of this file system alone. What goes meanwhile is left out."""
    waiting, device = [top], os.lstat(top).st_dev
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield found
                    if entry.is_dir(follow_symlinks=False) and found.st_dev == device:
                        waiting.append(entry.path)
