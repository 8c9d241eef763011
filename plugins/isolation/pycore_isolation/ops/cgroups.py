"""A container's cgroups: made, limited, joined, and emptied and removed at the end (cgroups(7))."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, Operation
from pycore.steps import Step

_BUSY = (errno.EBUSY, errno.ENOTEMPTY)
_PATIENCE = 2.0
"""Seconds that killed processes may take to leave a cgroup."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cgroup(Operation):
    """Make a container's cgroup in one hierarchy, below a cgroup that holds all of this pycore's."""

    step = Step.CGROUP
    root: str
    """Where the hierarchy is mounted."""
    parent: str
    name: str
    controllers: tuple[str, ...] = ()
    """v2: the controllers to turn on for it. A v1 hierarchy has its own from the start."""

    @property
    def path(self) -> str:
        """The directory."""
        return f"{self.root}/{self.parent}/{self.name}"

    def do(self, ctx: Context) -> None:
        try:
            self._make(ctx)
        except FileNotFoundError:  # the parent went with the last other container, between two calls of ours
            self._make(ctx)

    def _make(self, ctx: Context) -> None:
        ctx.kernel.mkdir(f"{self.root}/{self.parent}")
        for directory in (self.root, f"{self.root}/{self.parent}") if self.controllers else ():
            _turn_on(ctx, f"{directory}/cgroup.subtree_control", self.controllers)
        ctx.kernel.mkdir(self.path)

    def undo(self, ctx: Context) -> None:
        """Kill what is left in it, remove it, and its parent if that was the last."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                ctx.kernel.rmdir(self.path)
                break
            except OSError as error:
                if error.errno not in _BUSY or time.monotonic() > deadline:
                    raise
            _empty(ctx, self.path)
            time.sleep(0.005)
        try:
            ctx.kernel.rmdir(f"{self.root}/{self.parent}")
        except OSError as error:
            if error.errno not in _BUSY:
                raise

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.is_dir(self.path)

    def explain(self) -> str:
        turned_on = f" with {', '.join(self.controllers)}" if self.controllers else ""
        return f"make cgroup {self.path}{turned_on}"


def _turn_on(ctx: Context, path: str, controllers: tuple[str, ...]) -> None:
    missing = [name for name in controllers if name not in ctx.kernel.read(path).split()]
    if missing:
        ctx.kernel.write(path, " ".join(f"+{name}" for name in missing))


def _empty(ctx: Context, path: str) -> None:
    """Kill every process in a cgroup and below it, and remove the cgroups below as far as they are empty.

    One by one, because cgroup.kill is there only in v2 since Linux 5.14.
    """
    for name in ctx.kernel.listdir(path):
        below = f"{path}/{name}"
        if ctx.kernel.is_dir(below):
            _empty(ctx, below)
            with contextlib.suppress(OSError):
                ctx.kernel.rmdir(below)
    with contextlib.suppress(FileNotFoundError):
        for pid in ctx.kernel.read(f"{path}/cgroup.procs").split():
            ctx.kernel.kill(int(pid), signal.SIGKILL)


@dataclass(frozen=True)
class Limit(Operation):
    """Set one controller's limits; taken back, they are unlimited again, for a live change that drops one."""

    step = Step.CGROUP
    path: str
    values: tuple[tuple[str, str, str], ...]
    """(file, value, value that means no limit), in the order in which they are written."""

    def do(self, ctx: Context) -> None:
        for name, value, _ in self.values:
            ctx.kernel.write(f"{self.path}/{name}", value)

    def undo(self, ctx: Context) -> None:
        for name, _, unlimited in reversed(self.values):
            with contextlib.suppress(FileNotFoundError):
                ctx.kernel.write(f"{self.path}/{name}", unlimited)

    def probe(self, ctx: Context) -> bool | None:
        return all(self._is_set(ctx, name, value) for name, value, _ in self.values)

    def _is_set(self, ctx: Context, name: str, value: str) -> bool:
        """As the kernel tells it: it rounds memory down to pages, and weights it may put otherwise."""
        try:
            now = ctx.kernel.read(f"{self.path}/{name}").strip()
        except FileNotFoundError:
            return False
        if value.isdigit() and now.isdigit():
            return int(value) - _PAGE < int(now) <= int(value) if name.startswith("memory.") else int(now) == int(value)
        return now == value

    def explain(self) -> str:
        return f"limit {self.path}: {', '.join(f'{name} = {value}' for name, value, _ in self.values)}"


@dataclass(frozen=True)
class JoinCgroup(Operation):
    """Move this process into its cgroups before it does anything that would be charged elsewhere."""

    step = Step.JOIN
    files: tuple[str, ...]
    """v2: cgroup.procs. v1: tasks, which for the only thread of a process is the same but needs no lock over all
    processes of the host: 0.1 ms instead of up to 10 (cgroup_procs_write_start() in kernel/cgroup/cgroup.c)."""

    def do(self, ctx: Context) -> None:
        for path in self.files:
            ctx.kernel.write(path, "0")

    def explain(self) -> str:
        return f"join cgroup {', '.join(path.rpartition('/')[0] for path in self.files)}"


@dataclass(frozen=True)
class CgroupNamespace(Operation):
    """Make the cgroups joined the roots of what the container sees; so it comes after joining them."""

    step = Step.JOIN

    def do(self, ctx: Context) -> None:
        ctx.kernel.unshare(libc.CLONE_NEWCGROUP)

    def explain(self) -> str:
        return "unshare the cgroup namespace"
