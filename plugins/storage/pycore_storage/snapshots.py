"""The files of a container, as the two drivers keep them: layers, and what is changed over them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

from pycore.linux import copytree, idmap, layered, measure, quota
from pycore.linux.kernel import Kernel
from pycore.linux.layered import Change
from pycore.linux.measure import Usage
from pycore.ops import Operation

from pycore_storage.ops.layers import Layer, MemoryRoot, OverlayRoot, Quota, Volatile
from pycore_storage.ops.roots import Copy, DirectoryRoot


@dataclass(frozen=True)
class OverlaySnapshot:
    """An overlay. What is changed is ``path/upper``, which belongs to whom root inside is on the host."""

    layers: tuple[str, ...]
    """The uppermost first."""
    path: str
    hidden: tuple[str, ...] = ()
    """Paths that are not to be seen."""
    own: bool = True
    """Whether the layers are the container's image, rather than the host's files."""
    size: int = 0
    """Bytes that it may take; 0 for any number."""
    volatile: bool = False

    def prepare(self) -> Iterator[Operation]:
        if self.volatile:
            yield Volatile(self.path)
        yield Layer(self.path, self.layers[-1], self.hidden)
        if self.size:
            yield Quota(self.path, self.size)

    def mount(self) -> Iterable[Operation]:
        return [OverlayRoot(self.layers, self.path, self.own, self.volatile)]

    def usage(self) -> Usage:
        return quota.usage(self.path) or measure.measure(f"{self.path}/upper")

    def changes(self) -> list[Change]:
        return layered.changes_of_layer(f"{self.path}/upper", self.layers, self.hidden)

    def commit(self, destination: str) -> None:
        hidden = set(self.hidden)
        upper = f"{self.path}/upper"
        copytree.copy_layer(upper, destination, _first_id(self.path), lambda path: path not in hidden)

    @contextlib.contextmanager
    def view(self) -> Generator[str, None, None]:
        kernel = Kernel()
        with contextlib.ExitStack() as opened:
            fds = [_own(kernel, f"{self.path}/upper", _first_id(self.path))]
            opened.callback(os.close, fds[0])
            for layer in self.layers:
                fds.append(kernel.open_path(layer))
                opened.callback(os.close, fds[-1])
            root = kernel.mount_overlay(fds, -1)
            opened.callback(os.close, root)
            yield f"/proc/self/fd/{root}"


@dataclass(frozen=True)
class MemorySnapshot:
    """An overlay whose changes are in memory, and end with the process: from outside, nothing is ever changed."""

    layers: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    own: bool = True
    size: int = 0

    def prepare(self) -> Iterable[Operation]:
        return []

    def mount(self) -> Iterable[Operation]:
        return [MemoryRoot(self.layers, self.hidden, self.own, self.size)]

    def usage(self) -> Usage:
        return Usage()

    def changes(self) -> list[Change]:
        return []

    def commit(self, destination: str) -> None:
        os.mkdir(destination, 0o755)

    @contextlib.contextmanager
    def view(self) -> Generator[str, None, None]:
        kernel = Kernel()
        with contextlib.ExitStack() as opened:
            fds: list[int] = []
            for layer in self.layers:
                fds.append(kernel.open_path(layer))
                opened.callback(os.close, fds[-1])
            if len(fds) > 1:
                fds = [kernel.mount_overlay(fds, -1)]
                opened.callback(os.close, fds[0])
            yield f"/proc/self/fd/{fds[0]}"


@dataclass(frozen=True)
class CopySnapshot:
    """A copy of the layers, which is the container's own: ``path/root``."""

    layers: tuple[str, ...]
    path: str
    size: int = 0
    _tree: str = field(init=False, default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", f"{self.path}/root")

    def prepare(self) -> Iterator[Operation]:
        yield Copy(self.layers, self.path)
        if self.size:
            yield Quota(self.path, self.size)

    def mount(self) -> Iterable[Operation]:
        return [DirectoryRoot(self._tree)]

    def usage(self) -> Usage:
        return quota.usage(self.path) or measure.measure(self._tree)

    def changes(self) -> list[Change]:
        return layered.changes_of_tree(self._tree, self.layers, _Differ(_first_id(self.path)))

    def commit(self, destination: str) -> None:
        """Copy what is changed, and put a whiteout where something is not any more."""
        changes = self.changes()
        wanted = {each.path for each in changes if each.kind != "D"}
        temporary = f"{destination}.part"
        copytree.copy_layer(self._tree, temporary, _first_id(self.path), wanted.__contains__)
        for each in changes:
            if each.kind == "D":
                _whiteout(f"{temporary}{each.path}")
        os.rename(temporary, destination)

    @contextlib.contextmanager
    def view(self) -> Generator[str, None, None]:
        tree = _own(Kernel(), self._tree, _first_id(self.path))
        try:
            yield f"/proc/self/fd/{tree}"
        finally:
            os.close(tree)


def _first_id(path: str) -> int:
    """Who root inside is on the host: the owner of the directory above all that is changed."""
    return os.stat(path).st_uid


def _own(kernel: Kernel, path: str, first_id: int) -> int:
    """A descriptor of a directory whose files have the owners that they have inside."""
    if not first_id:
        return kernel.open_path(path)
    tree = kernel.mount_clone(path, recursive=False)
    try:
        back = idmap.back(first_id)
        kernel.mount_owners(tree, back, back, recursive=False)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _whiteout(path: str) -> None:
    """Into a directory of ours, whose time stays as it is."""
    above = os.path.dirname(path)
    info = os.stat(above)
    Kernel().whiteout(path)
    os.utime(above, ns=(info.st_atime_ns, info.st_mtime_ns))


class _Differ:
    """Whether a file of a copy is another than the one that it was copied from."""

    def __init__(self, first_id: int) -> None:
        self._first_id = first_id

    def __call__(self, copy: int, original: int, name: str) -> bool:
        new = os.stat(name, dir_fd=copy, follow_symlinks=False)
        old = os.stat(name, dir_fd=original, follow_symlinks=False)
        if (new.st_mode, new.st_uid - self._first_id, new.st_gid - self._first_id) != (
            old.st_mode, old.st_uid, old.st_gid,
        ):  # fmt: skip
            return True
        if not stat.S_ISDIR(new.st_mode) and new.st_nlink > old.st_nlink:
            return True  # it has a new name; with all of them in one layer it stays one file
        if stat.S_ISLNK(new.st_mode):
            return os.readlink(name, dir_fd=copy) != os.readlink(name, dir_fd=original)
        if stat.S_ISREG(new.st_mode) and (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
            return True
        return (stat.S_ISREG(new.st_mode) or stat.S_ISDIR(new.st_mode)) and _attributes(copy, name) != _attributes(
            original, name
        )


def _attributes(directory: int, name: str) -> dict[str, bytes]:
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        names = [each for each in os.listxattr(fd) if not each.startswith(layered.PRIVATE)]
        return {each: os.getxattr(fd, each) for each in names}
    finally:
        os.close(fd)
