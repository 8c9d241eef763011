"""The driver ``vfs``: a full copy of an image for each container; slow and large, and it works everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pycore.errors import Problem
from pycore.hookspecs import Driver, Host, hookimpl
from pycore.ops import Operation
from pycore.spec import Container, Process, Section

from pycore_storage.ops.roots import Copy, DirectoryRoot, ReadOnlyRoot
from pycore_storage.root import Root
from pycore_storage.sources import Kind, Source, own_paths, problem_of, source_of


@hookimpl
def pycore_driver() -> Driver:
    """Chosen with ``driver = "vfs"``."""
    return Driver("storage", "vfs", "A full copy of an image, for file systems that overlayfs cannot write to.")


@hookimpl
def pycore_sections() -> Sequence[type[Section]]:
    """``read_only``."""
    return [Root]


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Copy the directory, or unpack the tar file."""
    source = source_of(container, host.look)
    problem = problem_of(source, host.look) or _too_much(source, host)
    if problem:
        host.problems.append(problem)
    else:
        yield Copy(source.path, copy_dir(container, host), archive=source.kind is Kind.TAR)


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """Let the copy be the root."""
    yield DirectoryRoot(f"{copy_dir(container, host)}/root")
    if container[Root].read_only:
        yield ReadOnlyRoot()


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    """The image and where the copy is."""
    return {"image": container[Process].image, "layer": f"{copy_dir(container, host)}/root"}


def copy_dir(container: Container, host: Host) -> str:
    """Where the copy is kept."""
    return str(host.container_dir(container) / "copy")


def _too_much(source: Source, host: Host) -> Problem | None:
    """A copy of the whole host is nobody's wish, and one that holds itself has no end."""
    if source.kind is Kind.HOST:
        return Problem(
            ("image",), 'driver "vfs" would copy the whole host', hint='use driver = "overlayfs", or another image'
        )
    if source.kind is Kind.DIRECTORY and own_paths(host, source.path):
        return Problem(
            ("image",),
            f"{source.path} holds pycore's own directories, which would be copied into themselves",
            hint='use driver = "overlayfs", or --data-dir and --run-dir outside of it',
        )
    return None
