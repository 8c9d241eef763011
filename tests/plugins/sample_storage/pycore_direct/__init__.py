"""A storage driver: the image's own directory as the root, read-only; no layer, no copy."""

from __future__ import annotations

from collections.abc import Iterator

import pycore
from pycore.spec import Process

from pycore_direct.operations import DirectRoot


@pycore.hookimpl
def pycore_driver() -> pycore.Driver:
    return pycore.Driver("storage", "direct", "The image's own directory, read-only: no layer, no copy.")


@pycore.hookimpl
def pycore_enter(container: pycore.Container, host: pycore.Host) -> Iterator[pycore.Operation]:
    image = container[Process].image
    directory = "/" if image == "host" else str(container.app.directory / image)
    if host.look.is_dir(directory):
        yield DirectRoot(directory)
    else:
        host.problems.append(pycore.Problem(("image",), f'driver "direct" takes a directory, and {image!r} is none'))
