"""What a container has besides its root: volumes, directories of the host, memory."""

from __future__ import annotations

import json
import os
import posixpath
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pycore.linux import idmap, libc
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step

from pycore_storage.ops.layers import in_words

_PLAIN = libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV


@dataclass(frozen=True)
class Volume(Operation):
    """Make a named volume, unless it is there. Nothing takes it back: data is never removed with a container.

    A new one begins with what the image has in its place: with the directory ``place`` of ``layers``, the uppermost
    first. Its files belong on the disk to whom they belong inside, in a user namespace too.
    """

    step = Step.VOLUME
    path: str
    store: str
    """The directory of all volumes, closed to other users."""
    place: str = ""
    layers: tuple[str, ...] = ()
    note: str = ""
    """The file in which it is noted what the volume is, for people; none for a volume without a name."""
    labels: tuple[tuple[str, str], ...] = ()

    def do(self, ctx: Context) -> None:
        kernel = ctx.kernel
        kernel.mkdir(self.store, 0o700)
        with kernel.locked(self.store):
            if kernel.is_dir(self.path) and (not self.layers or kernel.listdir(self.path)):
                return
            kernel.mkdir(posixpath.dirname(self.path))
            if not (self.layers and kernel.copy_from_layers(self.layers, self.place, self.path)):
                kernel.mkdir(self.path)
            if self.note and not kernel.exists(self.note):
                kernel.mkdir(posixpath.dirname(self.note))
                kernel.replace(self.note, note_of(dict(self.labels)))

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(self.path)

    def explain(self) -> str:
        content = f", with what the image has in {self.place}" if self.layers else ""
        return f"make the volume {self.path}{content}, unless it is there"


def note_of(labels: Mapping[str, str]) -> str:
    """What is noted of a new volume."""
    return json.dumps({"created": time.time(), "labels": dict(labels)})


@dataclass(frozen=True)
class OwnVolume(Volume):
    """A volume that goes with its container: the image asks for it, and nobody has given it a name."""

    def undo(self, ctx: Context) -> None:
        ctx.kernel.rmtree(self.path)


@dataclass(frozen=True)
class Bind(InsideOperation):
    """Put a directory or a file of the host in a place inside, with what is mounted below it if ``recursive``.

    With ``own`` its files belong inside to whom they belong on the disk, in a user namespace too. Those of the
    directory's owner are ``uid``'s inside, and what that one writes is the owner's; likewise ``gid``. -1 leaves it.
    """

    step = Step.MOUNT
    outside = True
    source: str
    target: str
    read_only: bool = False
    directory: bool = True
    recursive: bool = True
    subpath: str = ""
    """What of the source it is: a directory below it, made where it is missing."""
    own: bool = False
    uid: int = -1
    gid: int = -1

    def depth(self) -> int:
        return self.target.count("/")

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = tree = self._clone(ctx)
        if self.uid >= 0 or self.gid >= 0 or (self.own and ctx.id_count):
            self._show(ctx, tree)
        attributes = _PLAIN | (libc.MOUNT_ATTR_RDONLY if self.read_only else 0)
        ctx.kernel.mount_attributes(tree, attributes, self.recursive)

    def _show(self, ctx: Context, tree: int) -> None:
        uid, gid = ctx.kernel.owner(self.source)
        first, count = (ctx.root_id, ctx.id_count) if ctx.id_count else (0, idmap.ALL)
        with in_words(ctx, self.source):
            users = idmap.lines(first, count, (uid, self.uid) if self.uid >= 0 else None)
            groups = idmap.lines(first, count, (gid, self.gid) if self.gid >= 0 else None)
            ctx.kernel.mount_owners(tree, users, groups, self.recursive)

    def _clone(self, ctx: Context) -> int:
        if not self.subpath:
            return ctx.kernel.mount_clone(self.source, self.recursive)
        place = ctx.kernel.open_below(self.source, self.subpath)
        try:
            return ctx.kernel.mount_clone(place, self.recursive)
        finally:
            os.close(place)

    def do(self, ctx: Context) -> None:
        ctx.kernel.mount_place(ctx.held.pop(self), self.target, self.directory)

    def explain(self) -> str:
        source = f"{self.source}/{self.subpath}" if self.subpath else self.source
        ids = [f",{name}={value}" for name, value in (("uid", self.uid), ("gid", self.gid)) if value >= 0]
        return f"bind {source} on {self.target} (nosuid,nodev{',ro' if self.read_only else ''}{''.join(ids)})"


@dataclass(frozen=True)
class Tmpfs(Operation):
    """Mount memory. ``size`` is in bytes; 0 leaves it to the kernel: half of the memory (tmpfs(5))."""

    step = Step.MOUNT
    target: str
    size: int = 0
    mode: int = 0o1777
    executable: bool = False

    def depth(self) -> int:
        return self.target.count("/")

    def do(self, ctx: Context) -> None:
        options: dict[str, str | None] = {"mode": f"{self.mode:o}"}
        if self.size:
            options["size"] = str(self.size)
        attributes = _PLAIN | (0 if self.executable else libc.MOUNT_ATTR_NOEXEC)
        ctx.kernel.mount_place(ctx.kernel.mount_new("tmpfs", options, attributes), self.target)

    def explain(self) -> str:
        size = f",size={self.size}" if self.size else ""
        noexec = "" if self.executable else ",noexec"
        return f"mount tmpfs on {self.target} (nosuid,nodev{noexec},mode={self.mode:o}{size})"
