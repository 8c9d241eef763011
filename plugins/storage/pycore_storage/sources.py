"""What ``image`` means: the host's own root, a directory, or a tar file; and the way from there to a layer."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from dataclasses import dataclass
from enum import Enum

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.linux.look import Look
from pycore.spec import Container, Process

from pycore_storage.ops.images import UnpackedTar


class Kind(Enum):
    """What kind of thing an image is."""

    HOST = "host"
    DIRECTORY = "directory"
    TAR = "tar"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """Where a root comes from. ``path`` is a real path of the host, without links."""

    kind: Kind
    path: str


def source_of(container: Container, look: Look) -> Source:
    """What the container's image names; a path that is not there counts as a directory."""
    image = container[Process].image
    if image == "host":
        return Source(Kind.HOST, "/")
    if not is_path(image):
        return Source(Kind.UNKNOWN, image)
    path = look.real(host_path(container, image))
    if path == "/":
        return Source(Kind.HOST, path)
    if look.exists(path) and not look.is_dir(path):
        return Source(Kind.TAR, path)
    return Source(Kind.DIRECTORY, path)


def is_path(text: str) -> bool:
    """Whether a source is a path of the host rather than a name: as in Compose, by its first character."""
    return text.startswith(("/", "."))


def host_path(container: Container, text: str) -> str:
    """A path as an absolute one; a relative one starts at the directory of the spec."""
    return posixpath.normpath(posixpath.join(str(container.app.directory), text))


def problem_of(source: Source, look: Look) -> Problem | None:
    """What is wrong with an image on this host, if anything."""
    if source.kind is Kind.UNKNOWN:
        return Problem(
            ("image",),
            f'image "{source.path}" is not a path, and images from registries are not there yet',
            hint='use "host", or a directory or a tar file whose path begins with ./, ../ or /',
        )
    if not look.exists(source.path):
        return Problem(
            ("image",),
            f"there is no {source.path}",
            hint="a relative path starts at the directory of the spec; "
            f"mkdir -p {shlex.quote(source.path)} makes a directory to fill",
        )
    return None


def layer_of(source: Source, container: Container, host: Host) -> tuple[str, tuple[UnpackedTar, ...]]:
    """The directory that holds an image's files, and what has to be done before it does.

    A container keeps the image that it was made from, even when the tar file has changed since.
    """
    if source.kind is not Kind.TAR:
        return source.path, ()
    images = host.data_dir / "images"
    image = str(images / (_image_used(str(images), container.id, host.look) or _key(source.path, host.look)))
    return f"{image}/users/{container.id}", (UnpackedTar(source.path, image, container.id),)


def _image_used(images: str, user: str, look: Look) -> str | None:
    return next((key for key in look.listdir(images) if user in look.listdir(f"{images}/{key}/users")), None)


def _key(path: str, look: Look) -> str:
    return hashlib.sha256(f"{path}\0{look.stamp(path)}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


def own_paths(host: Host, below: str) -> tuple[str, ...]:
    """Where pycore keeps its own below a directory, as paths that start there."""
    above = below.rstrip("/")
    own = {host.look.real(str(directory)) for directory in (host.data_dir, host.run_dir)}
    inside = sorted(path[len(above) :] for path in own if path.startswith(f"{above}/"))
    return tuple(path for path in inside if not any(path.startswith(f"{other}/") for other in inside))
