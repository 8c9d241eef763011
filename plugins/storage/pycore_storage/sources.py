"""What a container is made of, as the drivers see it: layers, and the way from a tar file to one."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from dataclasses import dataclass

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.linux.look import Look
from pycore.spec import Container

from pycore_storage.ops.images import UnpackedTar


@dataclass(frozen=True)
class Base:
    """Layers that nobody writes to, the uppermost first, and what has to be done before they are there."""

    layers: tuple[str, ...]
    unpack: tuple[UnpackedTar, ...] = ()

    @property
    def is_host(self) -> bool:
        """Whether it is the host's own root."""
        return self.layers == ("/",)


def base_of(container: Container, host: Host) -> Base | Problem:
    """What the container's image is on this host; or what is wrong with it.

    A container keeps the image that it was made from, even when the tar file has changed since.
    """
    layers = container.image.layers
    if not layers:
        words = f"image {container.image.name} has no files"
        return Problem(("image",), words, hint="take one that has a program in it")
    if container.image.digest:  # kept by content: it is here, or is fetched first
        return Base(layers)
    for path in layers:
        if not host.look.exists(path):
            return Problem(
                ("image",),
                f"there is no {path}",
                hint="a relative path starts at the directory of the spec; "
                f"mkdir -p {shlex.quote(path)} makes a directory to fill",
            )
    if len(layers) != 1 or host.look.is_dir(layers[0]):
        return Base(layers)
    images = host.data_dir / "images"
    used = _image_used(str(images), container.id, host.look)
    image = str(images / (used or _key(layers[0], host.look)))
    return Base((f"{image}/users/{container.id}",), (UnpackedTar(layers[0], image, container.id),))


def _image_used(images: str, user: str, look: Look) -> str | None:
    return next((key for key in look.listdir(images) if user in look.listdir(f"{images}/{key}/users")), None)


def _key(path: str, look: Look) -> str:
    return hashlib.sha256(f"{path}\0{look.stamp(path)}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


def is_path(text: str) -> bool:
    """Whether a source is a path of the host rather than a name: as in Compose, by its first character."""
    return text.startswith(("/", "."))


def host_path(container: Container, text: str) -> str:
    """A path as an absolute one; a relative one starts at the directory of the spec."""
    return posixpath.normpath(posixpath.join(str(container.app.directory), text))


def own_paths(host: Host, below: str) -> tuple[str, ...]:
    """Where pycore keeps its own below a directory, as paths that start there."""
    above = below.rstrip("/")
    own = {host.look.real(str(directory)) for directory in (host.data_dir, host.run_dir)}
    inside = sorted(path[len(above) :] for path in own if path.startswith(f"{above}/"))
    return tuple(path for path in inside if not any(path.startswith(f"{other}/") for other in inside))
