"""A container held still: none of its processes is given processor time until it goes on."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Generator
from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

_PATIENCE = 10.0
"""Seconds that a container may take to stand still: a process in an uninterruptible call comes to it only then."""
_GONE = (errno.ENOENT, errno.ENODEV)
"""What a control file says whose cgroup has been removed: before it was opened, and after."""
_BUSY = (errno.EBUSY, errno.ENOTEMPTY)


@dataclass(frozen=True)
class Freeze(Operation):
    """Freeze a container's own cgroup (cgroup v2; Documentation/admin-guide/cgroup-v2.rst, cgroup.freeze)."""

    step = Step.FREEZE
    path: str

    def do(self, ctx: Context) -> None:
        ctx.kernel.write(f"{self.path}/cgroup.freeze", "1")
        ctx.kernel.wait_for(f"{self.path}/cgroup.events", "frozen 1", _PATIENCE)

    def undo(self, ctx: Context) -> None:
        with _gone_is_fine():
            ctx.kernel.write(f"{self.path}/cgroup.freeze", "0")

    def probe(self, ctx: Context) -> bool | None:
        try:
            return "frozen 1" in ctx.kernel.read(f"{self.path}/cgroup.events").splitlines()
        except FileNotFoundError:
            return False

    def explain(self) -> str:
        return f"freeze cgroup {self.path}"


@dataclass(frozen=True)
class FreezeApart(Operation):
    """Freeze a container in a cgroup made for the length of the pause, where its own ones cannot be frozen.

    With cgroup v1 only the freezer hierarchy can, and to be in that one too would cost every start a move; so
    the processes are moved when a pause comes, and back after it. The new cgroup is frozen while it is empty:
    whoever is moved in stands still at once, and can make no more processes for us to run after.
    """

    step = Step.FREEZE
    root: str
    """Where the hierarchy is mounted: v1's freezer, or the v2 one of a hybrid host."""
    parent: str
    name: str
    members: str
    """The cgroup.procs of one that the container is always in: these are frozen."""
    back: str
    """The cgroup of this hierarchy that they were in."""
    unified: bool
    """Whether the hierarchy is v2."""

    @property
    def path(self) -> str:
        """The directory."""
        return f"{self.root}/{self.parent}/{self.name}"

    def do(self, ctx: Context) -> None:
        deadline = time.monotonic() + _PATIENCE
        try:
            self._make(ctx)
        except FileNotFoundError:  # the parent went with the last other paused container, between two calls of ours
            self._make(ctx)
        self._turn(ctx, frozen=True)
        while late := self._late(ctx):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "its processes cannot all be moved there", self.path)
            for pid in late:
                _move(ctx, pid, self.path)
        self._wait(ctx, deadline)

    def _make(self, ctx: Context) -> None:
        ctx.kernel.mkdir(f"{self.root}/{self.parent}")
        ctx.kernel.mkdir(self.path)

    def _late(self, ctx: Context) -> list[str]:
        """Processes of the container that have not been moved: some were made while we moved others."""
        members = ctx.kernel.read(self.members).split()
        frozen = set(ctx.kernel.read(f"{self.path}/cgroup.procs").split())
        return [pid for pid in members if pid not in frozen]

    def _turn(self, ctx: Context, *, frozen: bool) -> None:
        if self.unified:
            ctx.kernel.write(f"{self.path}/cgroup.freeze", "1" if frozen else "0")
        else:
            ctx.kernel.write(f"{self.path}/freezer.state", "FROZEN" if frozen else "THAWED")

    def _wait(self, ctx: Context, deadline: float) -> None:
        """Until all stand still. The v1 freezer tells nobody, so there it is asked again (freezer-subsystem.rst)."""
        if self.unified:
            ctx.kernel.wait_for(f"{self.path}/cgroup.events", "frozen 1", max(0.0, deadline - time.monotonic()))
            return
        while not self._is_still(ctx):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "its processes do not stand still", self.path)
            time.sleep(0.002)

    def _is_still(self, ctx: Context) -> bool:
        if self.unified:
            return "frozen 1" in ctx.kernel.read(f"{self.path}/cgroup.events").splitlines()
        return ctx.kernel.read(f"{self.path}/freezer.state").strip() == "FROZEN"

    def undo(self, ctx: Context) -> None:
        """Let them go on, then move them back; whoever has been made meanwhile is moved in the next round."""
        with _gone_is_fine():
            self._turn(ctx, frozen=False)
        back = self.back if ctx.kernel.exists(f"{self.back}/cgroup.procs") else self.root
        deadline = time.monotonic() + _PATIENCE
        while not _remove(ctx, self.path):
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "its processes cannot all be moved back", self.path)
            with _gone_is_fine():
                for pid in ctx.kernel.read(f"{self.path}/cgroup.procs").split():
                    _move(ctx, pid, back)
        _remove(ctx, f"{self.root}/{self.parent}")

    def probe(self, ctx: Context) -> bool | None:
        try:
            return self._is_still(ctx) and not self._late(ctx)
        except FileNotFoundError:
            return False

    def explain(self) -> str:
        return f"freeze all processes of {self.members.rpartition('/')[0]} in cgroup {self.path}"


def _move(ctx: Context, pid: str, cgroup: str) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        ctx.kernel.write(f"{cgroup}/cgroup.procs", pid)


def _remove(ctx: Context, path: str) -> bool:
    """Remove a cgroup; False where something is in it."""
    try:
        ctx.kernel.rmdir(path)
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        return False
    return True


@contextlib.contextmanager
def _gone_is_fine() -> Generator[None, None, None]:
    """A cgroup that has been removed needs nothing more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
