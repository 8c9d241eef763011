"""Another version of pycore: a copy of its source with another number, for the same Python and plugins."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from support.command import PROGRAM, Command
from support.needs import ROOT

_LEFT_OUT = shutil.ignore_patterns("__pycache__")


def copy_of(directory: Path, version: str) -> Path:
    """A copy of the source under another version number."""
    for root in ("core", "plugins"):
        shutil.copytree(ROOT / root, directory / root, ignore=_LEFT_OUT)
    home = directory / "core/pycore/__init__.py"
    text = home.read_text(encoding="utf-8")
    changed = re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', text, flags=re.MULTILINE)
    assert changed != text
    home.write_text(changed, encoding="utf-8")
    return directory


def command_of(tree: Path, command: Command) -> Command:
    """The command of a copy, with the run dir and data dir of another command."""
    roots = [tree / "core", *sorted((tree / "plugins").iterdir())]
    path = os.pathsep.join(map(str, roots))
    return Command(command.directory, PROGRAM, command.environment | {"PYTHONPATH": path})
