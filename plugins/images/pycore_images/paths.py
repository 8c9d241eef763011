"""Images that are on this host: its own root, and directories."""

from __future__ import annotations

import posixpath

from pycore.hookspecs import Found, Host, hookimpl
from pycore.image import Image
from pycore.spec import Container, Process, is_path


@hookimpl
def pycore_image(container: Container, host: Host) -> Found | None:
    """``host``, or a path."""
    words = container[Process].image
    if words == "host":
        return Found(Image("host", layers=("/",)))
    if not is_path(words):
        return None
    path = host.look.real(posixpath.join(str(container.app.directory), words))
    if host.look.exists(path) and not host.look.is_dir(path):
        return None  # an archive
    return Found(Image(path, layers=(path,)))
