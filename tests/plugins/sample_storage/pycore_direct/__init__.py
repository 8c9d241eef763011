"""A storage driver: the image's own directory as the root, read-only; no layer, no copy."""

from __future__ import annotations

from collections.abc import Iterator

import pycore

from pycore_direct.operations import DirectRoot


@pycore.hookimpl
def pycore_driver() -> pycore.Driver:
    return pycore.Driver("storage", "direct", "The image's own directory, read-only: no layer, no copy.")


@pycore.hookimpl
def pycore_enter(container: pycore.Container, host: pycore.Host) -> Iterator[pycore.Operation]:
    layers = container.image.layers
    if len(layers) == 1:
        yield DirectRoot(layers[0])
    else:
        words = f'driver "direct" takes an image of one layer, and {container.image.name} has {len(layers)}'
        host.problems.append(pycore.Problem(("image",), words))
