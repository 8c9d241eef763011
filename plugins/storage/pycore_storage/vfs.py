"""The driver ``vfs``: a full copy of an image for each container; slow and large, and it works everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, hookimpl
from pycore.ops import Operation
from pycore.spec import Container, Process, Section

from pycore_storage.ops.roots import ReadOnlyRoot
from pycore_storage.root import Root, lacks_quota
from pycore_storage.snapshots import CopySnapshot
from pycore_storage.sources import Base, base_of, own_paths


@hookimpl
def pycore_driver() -> Driver:
    """Chosen with ``driver = "vfs"``."""
    return Driver("storage", "vfs", "A full copy of an image, for file systems that overlayfs cannot write to.")


@hookimpl
def pycore_sections() -> Sequence[type[Section]]:
    """``read_only``, ``size``."""
    return [Root]


@hookimpl
def pycore_snapshot(container: Container, host: Host) -> CopySnapshot | None:
    """A copy."""
    base = base_of(container, host)
    return None if isinstance(base, Problem) else _snapshot(base, container, host)


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Copy the image."""
    base = base_of(container, host)
    problem = base if isinstance(base, Problem) else _too_much(base, host) or lacks_quota(container, host)
    if problem:
        host.problems.append(problem)
    elif isinstance(base, Base):
        yield from _snapshot(base, container, host).prepare()


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """Let the copy be the root."""
    base = base_of(container, host)
    if isinstance(base, Base):
        yield from _snapshot(base, container, host).mount()
    if container[Root].read_only:
        yield ReadOnlyRoot()


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    """The image and where the copy is."""
    return {"image": container[Process].image, "layer": f"{copy_dir(container, host)}/root"}


def _snapshot(base: Base, container: Container, host: Host) -> CopySnapshot:
    return CopySnapshot(base.layers, copy_dir(container, host), container[Root].bytes)


def copy_dir(container: Container, host: Host) -> str:
    """Where the copy is kept."""
    return str(host.container_dir(container) / "copy")


def _too_much(base: Base, host: Host) -> Problem | None:
    """A copy of the whole host is nobody's wish, and one that holds itself has no end."""
    if base.is_host:
        return Problem(
            ("image",), 'driver "vfs" would copy the whole host', hint='use driver = "overlayfs", or another image'
        )
    for layer in base.layers:
        if own_paths(host, layer):
            return Problem(
                ("image",),
                f"{layer} holds pycore's own directories, which would be copied into themselves",
                hint='use driver = "overlayfs", or --data-dir and --run-dir outside of it',
            )
    return None
