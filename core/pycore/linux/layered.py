"""Layers as overlayfs reads them (overlayfs.rst), without a mount: what one of them changes in those below.

A whiteout, a character device 0/0, takes a name away; a directory that is opaque takes away all that the layers below
have in it. Everything is looked at through descriptors, and no link is followed: what a container left is not trusted.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pycore.linux import libc, overlay

PRIVATE = overlay.prefix()
"""Of attributes that overlayfs notes down for itself. Settled by where this process is when this is imported."""
OPAQUE = f"{PRIVATE}opaque"
_CHUNK = 1 << 16
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

Kind = Literal["A", "C", "D"]


@dataclass(frozen=True, order=True)
class Change:
    """What became of a path, in Docker's letters: added, changed, deleted. Paths begin with a slash."""

    path: str
    kind: Kind


Differs = Callable[[int, int, str], bool]
"""Whether a name means another file in one directory than in the other; asked of two of the same type."""


def is_whiteout(info: os.stat_result) -> bool:
    """Whether a file says that there is none."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(directory: int) -> bool:
    """Whether a directory hides what the layers below have in it. For who may read ``trusted`` attributes."""
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError:
        return False


def changes_of_layer(upper: str, lower: Sequence[str], hidden: Collection[str] = ()) -> list[Change]:
    """What a layer changes in those below it, the uppermost first; ``hidden`` are paths of which nothing is said."""
    with _Layers(lower) as layers, _Opened(upper) as top:
        found = list(_of_layer(top, layers))
    return _complete(found, hidden)


def changes_of_tree(tree: str, lower: Sequence[str], differs: Differs) -> list[Change]:
    """The same for a whole tree that was copied from the layers, but for devices and sockets, and then changed."""
    with _Layers(lower) as layers, _Opened(tree) as top:
        found = list(_of_tree(top, layers, differs))
    return _complete(found, ())


def changes_between(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    """What is different in what some layers make together from what others do; what both have is not looked at.

    Files are the same when they are of the same kind, owner, mode and attributes, and have the same content.
    """
    with _Layers(old) as before, _Layers(new) as after:
        found = list(_between(before, after))
    return _complete(found, ())


def _complete(found: Sequence[Change], hidden: Collection[str]) -> list[Change]:
    """In order, and with the directories above what has changed: that they have, too."""
    kinds: dict[str, Kind] = {each.path: each.kind for each in found if not _is_hidden(each.path, hidden)}
    for path in [path for path in kinds if "/" in path[1:]]:
        above = path.rpartition("/")[0]
        while above and above not in kinds:
            kinds[above] = "C"
            above = above.rpartition("/")[0]
    return [Change(path, kinds[path]) for path in sorted(kinds, key=lambda path: path.split("/"))]


def _is_hidden(path: str, hidden: Collection[str]) -> bool:
    return any(f"{path}/".startswith(f"{each}/") for each in hidden)


def _of_layer(top: int, layers: _Layers) -> Iterator[Change]:
    waiting: list[tuple[str, tuple[int, ...]]] = [("", layers.all)]
    for path, under in waiting:  # grows as it goes
        with _opened(top, path) as directory, layers.at(path, under) as below:
            own = {entry.name: entry.stat(follow_symlinks=False) for entry in _scan(directory)}
            for name, info in own.items():
                inner, old = f"{path}/{name}", below.find(name)
                if is_whiteout(info):
                    if old:
                        yield Change(inner, "D")
                    continue
                yield Change(inner, "C" if old else "A") if not _same_directory(info, old) else Change(inner, "C")
                if stat.S_ISDIR(info.st_mode):
                    waiting.append((inner, old.under if old else ()))
            if is_opaque(directory) and path:
                yield from (Change(f"{path}/{name}", "D") for name in below.names() if name not in own)


def _same_directory(info: os.stat_result, old: _Found | None) -> bool:
    return old is not None and stat.S_ISDIR(info.st_mode) and stat.S_ISDIR(old.info.st_mode)


def _of_tree(top: int, layers: _Layers, differs: Differs) -> Iterator[Change]:
    waiting: list[tuple[str, tuple[int, ...]]] = [("", layers.all)]
    for path, under in waiting:
        with _opened(top, path) as directory, layers.at(path, under) as below:
            own = {entry.name: entry.stat(follow_symlinks=False) for entry in _scan(directory)}
            for name, info in own.items():
                inner, old = f"{path}/{name}", below.find(name)
                if old is None:
                    yield Change(inner, "A")
                elif stat.S_IFMT(info.st_mode) != stat.S_IFMT(old.info.st_mode) or differs(directory, old.fd, name):
                    yield Change(inner, "C")
                if stat.S_ISDIR(info.st_mode):
                    waiting.append((inner, old.under if old else ()))
            for name in below.names():
                gone = None if name in own else below.find(name)
                if gone and stat.S_IFMT(gone.info.st_mode) not in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
                    yield Change(f"{path}/{name}", "D")


def _between(before: _Layers, after: _Layers) -> Iterator[Change]:
    waiting = [("", before.all, after.all)]
    for path, under, over in waiting:
        if before.paths(under) == after.paths(over):
            continue
        with before.at(path, under) as one, after.at(path, over) as other:
            for name in sorted(one.every() | other.every()):
                inner, old, new = f"{path}/{name}", one.find(name), other.find(name)
                if old is None and new is None:
                    continue
                if old is None or new is None:
                    yield Change(inner, "D" if new is None else "A")
                elif not _same(old, new, name):
                    yield Change(inner, "C")
                if new and stat.S_ISDIR(new.info.st_mode):
                    waiting.append((inner, old.under if old else (), new.under))


def _same(old: _Found, new: _Found, name: str) -> bool:
    one, other = old.info, new.info
    if os.path.samestat(one, other):
        return True
    if (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return False
    if stat.S_ISLNK(one.st_mode):
        return os.readlink(name, dir_fd=old.fd) == os.readlink(name, dir_fd=new.fd)
    if not stat.S_ISREG(one.st_mode) and not stat.S_ISDIR(one.st_mode):
        return one.st_rdev == other.st_rdev
    with _file(old.fd, name) as first, _file(new.fd, name) as second:
        if _attributes(first) != _attributes(second):
            return False
        return stat.S_ISDIR(one.st_mode) or (one.st_size == other.st_size and _same_content(first, second))


def _same_content(first: int, second: int) -> bool:
    while True:
        one, other = os.read(first, _CHUNK), os.read(second, _CHUNK)
        if one != other or not one:
            return one == other


def _attributes(fd: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(fd, name) for name in os.listxattr(fd) if not name.startswith(PRIVATE)}
    except OSError:  # a file system without them
        return {}


@contextlib.contextmanager
def _file(directory: int, name: str) -> Generator[int, None, None]:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


# -- layers, one over the other --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What a name means: the file, the directory it is in, and the layers that have a part in what it holds."""

    info: os.stat_result
    fd: int
    under: tuple[int, ...] = ()


class _Layers:
    """Layers, the uppermost first, each open at its root."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._opened = contextlib.ExitStack()
        self.roots: list[int] = []
        self.all = tuple(range(len(paths)))

    def __enter__(self) -> _Layers:
        with contextlib.ExitStack() as opened:
            self.roots = [opened.enter_context(_Opened(path)) for path in self._paths]
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def paths(self, under: tuple[int, ...]) -> list[str]:
        """Which layers these are."""
        return [self._paths[number] for number in under]

    def at(self, path: str, under: tuple[int, ...]) -> _Directory:
        """One directory of those layers that have a part in it."""
        return _Directory(self, path, under)


class _Directory:
    """One directory, as several layers make it together."""

    def __init__(self, layers: _Layers, path: str, under: tuple[int, ...]) -> None:
        self._layers, self._path, self._under = layers, path, under
        self._opened = contextlib.ExitStack()
        self._parts: dict[int, int] = {}

    def __enter__(self) -> _Directory:
        with contextlib.ExitStack() as opened:
            for number in self._under:
                self._parts[number] = opened.enter_context(_opened(self._layers.roots[number], self._path))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def find(self, name: str) -> _Found | None:
        """What a name means here."""
        first: _Found | None = None
        under: list[int] = []
        for number, directory in self._parts.items():
            try:
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if is_whiteout(info) or (first and not stat.S_ISDIR(info.st_mode)):
                break
            first = first or _Found(info, directory)
            if not stat.S_ISDIR(info.st_mode):
                break
            under.append(number)
            with _opened(directory, name) as inner:
                if is_opaque(inner):
                    break
        return first and _Found(first.info, first.fd, tuple(under))

    def names(self) -> list[str]:
        """All that there is here."""
        return sorted(name for name in self.every() if self.find(name))

    def every(self) -> set[str]:
        """All that some layer says something of."""
        return {entry.name for directory in self._parts.values() for entry in _scan(directory)}


def _scan(directory: int) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)


class _Opened:
    """A directory by its path."""

    def __init__(self, path: str) -> None:
        self._path, self._fd = path, -1

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def _opened(root: int, path: str) -> Generator[int, None, None]:
    fd = libc.openat2(root, path.lstrip("/") or ".", _DIRECTORY, follow=False)
    try:
        yield fd
    finally:
        os.close(fd)
