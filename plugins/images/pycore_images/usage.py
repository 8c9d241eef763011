"""How much of the disk an unpacked layer takes: looked at once, then known."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

from pycore.linux.measure import Usage, measure

from pycore_images.store import Store

_NOTE = "usage"
"""What is written beside the layer's tree."""


def layer_usage(store: Store, diff_id: str) -> Usage:
    """Of an unpacked layer; nothing, where it is not here."""
    return usage_of(store.layer_tree(diff_id).parent)


def usage_of(directory: Path) -> Usage:
    """Of what is in a layer's directory."""
    try:
        return Usage(**json.loads((directory / _NOTE).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        usage = measured(directory)
        with contextlib.suppress(FileNotFoundError):  # it is not here, or goes just now
            note_usage(directory, usage)
        return usage


def measured(directory: Path) -> Usage:
    """What the tree in a layer's directory takes, with the recipe beside it."""
    usage = measure(str(directory / "tree"))
    try:
        return Usage(usage.bytes + (directory / "recipe").stat().st_blocks * 512, usage.inodes + 1)
    except FileNotFoundError:
        return usage


def note_usage(directory: Path, usage: Usage) -> None:
    """Write down what a layer's directory takes."""
    part = directory / f".{secrets.token_hex(8)}"
    part.write_text(json.dumps(asdict(usage)), encoding="ascii")
    os.rename(part, directory / _NOTE)
