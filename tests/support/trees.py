"""Trees of files with everything that can be said of a file, and how to tell two of them apart."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any


def looks(path: Path) -> dict[str, Any]:
    """Everything that can be said of a tree, by relative path, but for inode numbers."""
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    for each in sorted([path, *path.rglob("*")]):
        info = each.lstat()
        name = str(each.relative_to(path))
        found[name] = {
            "mode": info.st_mode,
            "owner": (info.st_uid, info.st_gid),
            "mtime": info.st_mtime_ns,
            "size": None if stat.S_ISDIR(info.st_mode) else info.st_size,
            "device": info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else None,
            "first name": None if stat.S_ISDIR(info.st_mode) else names.setdefault(info.st_ino, name),
            "content": each.read_bytes() if stat.S_ISREG(info.st_mode) else None,
            "link": os.readlink(each) if stat.S_ISLNK(info.st_mode) else None,
            "attributes": {name: os.getxattr(each, name) for name in os.listxattr(each, follow_symlinks=False)},
        }
    return found


def rich(place: Path) -> Path:
    """A directory with files of every kind but devices and sockets, for whoever may be anybody."""
    (place / "d/e").mkdir(parents=True)
    (place / "empty").mkdir(mode=0o700)
    (place / "d/file").write_bytes(os.urandom(100_000))
    (place / "d/e/none").write_bytes(b"")
    os.link(place / "d/file", place / "d/e/hard")
    os.symlink("../../../etc/passwd", place / "d/soft")
    os.link(place / "d/soft", place / "d/soft too", follow_symlinks=False)
    os.mkfifo(place / "pipe", 0o600)
    (place / b"\xff name".decode("utf-8", "surrogateescape")).write_text("odd")
    with open(place / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(10 << 20)
    os.setxattr(place / "d/file", "user.word", b"\0value")
    (place / "d/file").chmod(0o4711)
    (place / "d").chmod(0o1777)
    for each in (place / "d/soft", place / "d/file", place / "d/e", place / "d", place):
        os.utime(each, ns=(10**18, 10**18 + 123), follow_symlinks=False)
    return place
