"""What the host looks like from outside, so that a test session can prove that it left nothing behind."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pycore.linux.look import Look

_INSTANCE = re.compile(r"pycore-([0-9a-f]{6})")


def snapshot() -> set[str]:
    """Mounts, links, cgroups, network namespaces and nft tables, each as ``kind name``."""
    look = Look()
    found = {f"mount {point}" for point, _ in look.mounts()}
    found |= {f"link {name}" for name in look.links()}
    found |= {f"netns {name}" for name in look.listdir("/run/netns")}
    found |= {f"cgroup {path}" for path in _cgroups(Path("/sys/fs/cgroup"))}
    found |= {f"nft {table}" for table in _nft_tables()}
    return found


def ours(leftovers: set[str], base: Path) -> set[str]:
    """Those that this session made, told from what others do on the host at the same time.

    A mount is ours below the session's directory. Anything named after an instance is ours when its run dir
    lies there: the name holds a hash of that path (:attr:`pycore.hookspecs.Host.instance`).
    """
    hashes = {hashlib.sha256(str(path).encode()).hexdigest()[:6] for path in _directories(base)}
    return {
        thing
        for thing in leftovers
        if thing.startswith(f"mount {base}/") or any(found in hashes for found in _INSTANCE.findall(thing))
    }


def _cgroups(top: Path) -> Iterator[str]:
    """Control groups that are named after pycore, in every hierarchy."""
    for path, names, _ in os.walk(top):
        yield from (f"{path}/{name}" for name in names if "pycore" in name)


def _nft_tables() -> list[str]:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return []
    listing = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    return [line.removeprefix("table ") for line in listing.stdout.splitlines()]


def _directories(base: Path) -> Iterator[Path]:
    for path, names, _ in os.walk(base):
        if path.count("/") - str(base).count("/") >= 4:  # run dirs lie near the top; images do not
            names.clear()
        yield Path(path)
