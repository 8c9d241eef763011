"""What a container is made of, as the drivers see it: layers of an image."""

from __future__ import annotations

import posixpath
import shlex
from dataclasses import dataclass

from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.spec import Container


@dataclass(frozen=True)
class Base:
    """Layers that nobody writes to, the uppermost first."""

    layers: tuple[str, ...]

    @property
    def is_host(self) -> bool:
        """Whether it is the host's own root."""
        return self.layers == ("/",)


def base_of(container: Container, host: Host) -> Base | Problem:
    """What the container's image is on this host; or what is wrong with it."""
    layers = container.image.layers
    if not layers:
        words = f"image {container.image.name} has no files"
        return Problem(("image",), words, hint="take one that has a program in it")
    if not container.image.digest:  # what is kept by content is here, or is fetched first
        for path in layers:
            if not host.look.exists(path):
                return Problem(
                    ("image",),
                    f"there is no {path}",
                    hint="a relative path starts at the directory of the spec; "
                    f"mkdir -p {shlex.quote(path)} makes a directory to fill",
                )
    return Base(layers)


def host_path(container: Container, text: str) -> str:
    """A path as an absolute one; a relative one starts at the directory of the spec."""
    return posixpath.normpath(posixpath.join(str(container.app.directory), text))


def own_paths(host: Host, below: str) -> tuple[str, ...]:
    """Where pycore keeps its own below a directory, as paths that start there."""
    above = below.rstrip("/")
    own = {host.look.real(str(directory)) for directory in (host.data_dir, host.run_dir)}
    inside = sorted(path[len(above) :] for path in own if path.startswith(f"{above}/"))
    return tuple(path for path in inside if not any(path.startswith(f"{other}/") for other in inside))
