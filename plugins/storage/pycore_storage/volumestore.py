"""The named volumes of a data dir, as people handle them: made, copied, saved, restored, removed.

    volumes/APP/NAME           data of an app's own volume; its name is APP/NAME
    volumes/.shared/NAME       data of a volume with a name of its own: NAME
    volumes/.notes/...json     what is noted of it: when it was made, its labels

The directory ``volumes`` is the lock for making and removing, and is closed to other users.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from pycore.errors import Conflict, NotFound, UsageError
from pycore.linux import libc
from pycore.linux.kernel import Kernel
from pycore.linux.measure import Usage, measure
from pycore.spec import NAME_PATTERN

from pycore_storage.ops.mounts import note_of

SHARED, NOTES, PASSING = ".shared", ".notes", ".passing"
"""Directories beside those of apps, none of which can be called so."""


@dataclass(frozen=True)
class Stored:
    """A volume that is there."""

    name: str
    path: Path
    created: float
    """In seconds since 1970."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


class VolumeStore:
    """Methods raise OSError, and PycoreError for names that are none, are not there or are taken."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / "volumes"
        self._kernel = Kernel()

    def path(self, name: str) -> Path:
        """Where a volume's data is, or would be."""
        app, slash, own = name.partition("/")
        return self.root / app / own if slash else self.root / SHARED / name

    def note(self, name: str) -> Path:
        """Where it is noted what it is."""
        return self.root / NOTES / f"{self.path(name).relative_to(self.root)}.json"

    def all(self) -> list[Stored]:
        """Every volume, by name."""
        found: list[Stored] = []
        for app in _names(self.root):
            if app in (NOTES, PASSING):
                continue
            own = [name for name in _names(self.root / app) if not name.startswith(".")]
            found += [self._stored(name if app == SHARED else f"{app}/{name}") for name in own]
        return sorted(found, key=lambda each: each.name)

    def find(self, name: str) -> Stored:
        """A volume by its name. Raises NotFound."""
        if not self._is_there(checked(name)):
            raise NotFound(f"no such volume: {name}", hint="pycore volume ls lists the ones there are")
        return self._stored(name)

    def usage(self, name: str) -> Usage:
        """What it takes; every file of it is looked at."""
        return measure(str(self.path(name)))

    def create(self, name: str, labels: Mapping[str, str], uid: int = 0, gid: int = 0) -> Stored:
        """Make an empty one. Raises Conflict where it is there."""
        with self._new(name, labels) as place:
            os.mkdir(place, 0o755)
            os.chown(place, uid, gid)
        return self._stored(name)

    def snapshot(self, name: str, new: str) -> Stored:
        """Make a new one that is as another is now; extents are shared where the file system can. What is written to it
        meanwhile may be there in part.
        """
        from pycore.linux import copytree

        old = self.find(name)
        with self._new(new, old.labels) as place:
            copytree.copy(str(old.path), place)
        return self._stored(new)

    def backup(self, name: str, out: int) -> list[str]:
        """Write a volume to a descriptor as a tar stream; what had to be left out: sockets and devices."""
        from pycore.linux.packing import Packer

        return Packer(out).pack(str(self.find(name).path), ".", follow=False)

    def restore(self, name: str, stream: IO[bytes], *, replace: bool = False) -> Stored:
        """Make a volume from a tar stream, which may be compressed and hostile: whole or not at all.

        One that is there must be empty, unless it is to be replaced. Raises Conflict, PycoreError for a stream that is
        not sound.
        """
        from pycore.linux import untar

        there = self._is_there(checked(name))
        if there and not replace and os.listdir(self.path(name)):
            raise Conflict(f"volume {name} is not empty", hint="--replace puts the new content in the place of the old")
        labels: Mapping[str, str] = self._stored(name).labels if there else {}
        with self._new(name, labels, over=True) as place:
            untar.unpack_stream(stream, "the stream", place)
        return self._stored(name)

    def remove(self, name: str) -> None:
        """Remove a volume with its data. Whether anybody uses it, is the caller's matter, under :meth:`alone`."""
        self.find(name)
        with self._passing() as place:
            os.rename(self.path(name), place)
            self._kernel.unlink(str(self.note(name)))
        with contextlib.suppress(OSError):  # others of the app are there
            os.rmdir(self.path(name).parent)

    @contextlib.contextmanager
    def alone(self) -> Generator[None, None, None]:
        """Nobody makes or removes a volume meanwhile."""
        self._kernel.mkdir(str(self.root), 0o700)
        with self._kernel.locked(str(self.root)):
            yield

    @contextlib.contextmanager
    def _new(self, name: str, labels: Mapping[str, str], *, over: bool = False) -> Generator[str, None, None]:
        """A place to make a volume in, which is then put where it belongs; with ``over`` in the place of another."""
        checked(name)
        self._kernel.mkdir(str(self.root), 0o700)
        with self._passing() as place:
            yield place
            with self.alone():
                there = self._is_there(name)
                if there and not over:
                    raise Conflict(f"there is a volume {name} already")
                self._kernel.mkdir(str(self.path(name).parent))
                if there:
                    libc.exchange(place, str(self.path(name)))
                else:
                    os.rename(place, self.path(name))
                self._kernel.mkdir(str(self.note(name).parent))
                self._kernel.replace(str(self.note(name)), note_of(labels))

    @contextlib.contextmanager
    def _passing(self) -> Generator[str, None, None]:
        """A name in a directory for what comes and goes; what is there in the end is removed."""
        self._sweep()
        place = self.root / PASSING / f"{os.getpid()}-{secrets.token_hex(8)}"
        self._kernel.mkdir(str(place.parent), 0o700)
        try:
            yield str(place)
        finally:
            self._kernel.rmtree(str(place))

    def _sweep(self) -> None:
        """Remove what processes have left that died over it."""
        for name in _names(self.root / PASSING):
            pid = name.partition("-")[0]
            if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                self._kernel.rmtree(str(self.root / PASSING / name))

    def _is_there(self, name: str) -> bool:
        return self.path(name).is_dir()

    def _stored(self, name: str) -> Stored:
        path = self.path(name)
        fields: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            fields = cast("dict[str, Any]", json.loads(self.note(name).read_bytes()))
        return Stored(name, path, fields.get("created") or path.stat().st_mtime, fields.get("labels") or {})


def checked(name: str) -> str:
    """A volume's name. Raises UsageError."""
    if not re.fullmatch(f"({NAME_PATTERN}/)?{NAME_PATTERN}", name):
        raise UsageError(f"{name!r} is no name of a volume", hint="NAME, or APP/NAME for one that is an app's own")
    return name


def _names(directory: Path) -> list[str]:
    """Names of the directories in a directory."""
    try:
        with os.scandir(directory) as entries:
            return sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
