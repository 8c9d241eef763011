"""A small image, made from a few programs of the host's own: no registry, no download. Also used by tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path


def make_root(root: Path, programs: Iterable[str]) -> Path:
    """A directory with programs in /bin, the libraries they need, and the files of /etc that runtimes write."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
        (root / name).mkdir(parents=True)
    for name in ("hosts", "hostname", "resolv.conf"):
        (root / "etc" / name).touch()
    for program in programs:
        found = shutil.which(program)
        if found is None:
            raise FileNotFoundError(f"this host has no {program}")
        shutil.copy(os.path.realpath(found), root / "bin" / program)
        listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            place = root / library.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(library), place)
    return root
