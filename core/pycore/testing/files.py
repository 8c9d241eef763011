"""A file tree in memory, for the fake kernel."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import posixpath
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

_MAX_LINKS = 40
"""As path_resolution(7) has it."""

_versions = itertools.count(1)


def fail(number: int, path: str) -> OSError:
    """The error that the kernel would give."""
    return OSError(number, os.strerror(number), path)


@dataclass(frozen=True)
class Node:
    """Whatever has a path. ``content`` is a file's bytes or a link's text."""

    kind: Literal["file", "directory", "link", "device"]
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    version: int = field(default_factory=lambda: next(_versions), compare=False)
    """Another one for each change, for :meth:`pycore.linux.look.Look.stamp`."""

    def __repr__(self) -> str:
        return f"{self.kind} {self.mode:o} {self.uid}:{self.gid} {reprlib.repr(self.content)}"


class Files:
    """Path to node; every directory is a node of its own."""

    def __init__(self, nodes: dict[str, Node] | None = None) -> None:
        self.nodes = nodes if nodes is not None else {"/": Node("directory", mode=0o755)}

    def copy(self) -> Files:
        """Another tree of the same nodes; what is changed in one is not in the other."""
        return Files(dict(self.nodes))

    # -- looking -----------------------------------------------------------------------------------------

    def real(self, path: str, strict: bool = True) -> str:
        """The path with every link followed; what is at its end need not be there.

        Raises OSError: ELOOP and, if strict, ENOENT and ENOTDIR for what is on the way.
        """
        if self._is_plain(path):
            return path
        done, rest, links = "/", [part for part in path.split("/") if part], 0
        while rest:
            here = posixpath.normpath(posixpath.join(done, rest.pop(0)))
            node = self.nodes.get(here)
            if node is None or node.kind != "link":
                if rest and strict and (node is None or node.kind != "directory"):
                    raise fail(errno.ENOENT if node is None else errno.ENOTDIR, path)
                done = here
                continue
            links += 1
            if links > _MAX_LINKS:
                raise fail(errno.ELOOP, path)
            text = node.content.decode()
            done = "/" if text.startswith("/") else done
            rest = [part for part in text.split("/") if part] + rest
        return done

    def _is_plain(self, path: str) -> bool:
        """Whether a path is its own real path, as most are: only directories on the way, no link at its end."""
        if path[:1] != "/" or "//" in path or "/." in path or path[-1] == "/":
            return False
        place = path.find("/", 1)
        while place > 0:
            node = self.nodes.get(path[:place])
            if node is None or node.kind != "directory":
                return False
            place = path.find("/", place + 1)
        last = self.nodes.get(path)
        return last is None or last.kind != "link"

    def find(self, path: str) -> Node | None:
        """What the path leads to, links followed, or None."""
        try:
            return self.nodes.get(self.real(path))
        except OSError:
            return None

    def get(self, path: str, kind: str = "") -> Node:
        """What the path leads to. Raises OSError: ENOENT, ENOTDIR, EISDIR."""
        node = self.nodes.get(self.real(path))
        if node is None:
            raise fail(errno.ENOENT, path)
        if kind == "directory" and node.kind != "directory":
            raise fail(errno.ENOTDIR, path)
        if kind == "file" and node.kind == "directory":
            raise fail(errno.EISDIR, path)
        return node

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted. Raises OSError: ENOENT, ENOTDIR."""
        self.get(path, "directory")
        prefix = self.real(path).rstrip("/") + "/"
        return sorted({key[len(prefix) :].partition("/")[0] for key in self.nodes if key.startswith(prefix)} - {""})

    def below(self, path: str) -> Iterator[str]:
        """Paths of all that is below a directory."""
        prefix = path.rstrip("/") + "/"
        yield from [key for key in self.nodes if key.startswith(prefix) and key != path]

    # -- changing ----------------------------------------------------------------------------------------

    def add(self, path: str, node: Node) -> None:
        """Put a node at a path that is free, in a directory that is there. Raises OSError: ENOENT, EEXIST."""
        place = self.place(path)
        if place in self.nodes:
            raise fail(errno.EEXIST, path)
        self.nodes[place] = node

    def put(self, path: str, node: Node) -> None:
        """Put a node at a path, in the place of whatever file or link was there."""
        place = self.place(path)
        old = self.nodes.get(place)
        if old and old.kind == "directory":
            raise fail(errno.EISDIR, path)
        self.nodes[place] = node

    def place(self, path: str) -> str:
        """The path itself, links followed on the way but not at its end. Raises OSError where the way is not there."""
        head, _, name = path.rstrip("/").rpartition("/")
        self.get(head or "/", "directory")
        return posixpath.join(self.real(head or "/"), name)

    def make_directories(self, path: str, mode: int = 0o755) -> list[str]:
        """As mkdir -p; the mode is the last one's. Returns the paths that are new."""
        node, head = self.find(path), posixpath.dirname(path)
        if node and node.kind == "directory":
            return []
        made: list[str] = []
        if self.find(head) is None:
            with contextlib.suppress(FileExistsError):
                made = self.make_directories(head)
        self.add(path, Node("directory", mode=mode))
        return [*made, path]

    def write(self, path: str, content: bytes) -> None:
        """Change the content of a file that is there."""
        node = self.get(path, "file")
        self.nodes[self.real(path)] = replace(node, content=content, version=next(_versions))

    def remove(self, path: str) -> None:
        """Remove a file or a link. Raises OSError: ENOENT, EISDIR."""
        place, node = self._own(path)
        if node.kind == "directory":
            raise fail(errno.EISDIR, path)
        del self.nodes[place]

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory. Raises OSError: ENOENT, ENOTDIR, ENOTEMPTY."""
        place, node = self._own(path)
        if node.kind != "directory":
            raise fail(errno.ENOTDIR, path)
        if any(self.below(place)):
            raise fail(errno.ENOTEMPTY, path)
        del self.nodes[place]

    def remove_tree(self, path: str) -> None:
        """Remove a directory with all below it. Raises OSError: ENOENT, ENOTDIR."""
        place, node = self._own(path)
        if node.kind != "directory":
            raise fail(errno.ENOTDIR, path)
        for each in [*self.below(place), place]:
            del self.nodes[each]

    def _own(self, path: str) -> tuple[str, Node]:
        """What is at a path itself, a link not followed. Raises OSError: ENOENT."""
        place = self.place(path)
        if place not in self.nodes:
            raise fail(errno.ENOENT, path)
        return place, self.nodes[place]

    def copy_tree(self, source: str, destination: str) -> None:
        """Copy a directory to a path that is free."""
        self.get(source, "directory")
        origin = self.real(source)
        self.add(destination, self.nodes[origin])
        for path in self.below(origin):
            if not path.startswith(destination):
                self.nodes[destination + path[len(origin.rstrip("/")) :]] = self.nodes[path]
