"""Images out of the store and into files, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from pycore_images import documents
from pycore_images.archives.found import Found
from pycore_images.archives.targets import Target
from pycore_images.archives.writing import Writer
from pycore_images.content import Descriptor, Progress, quiet
from pycore_images.sending import send
from pycore_images.store import Store


def save(
    store: Store,
    images: Iterable[tuple[Descriptor, Sequence[str]]],
    target: Target,
    *,
    docker: bool = False,
    platform: documents.Platform | None = None,
    progress: Progress = quiet,
    cancel: threading.Event | None = None,
) -> None:
    """Write images, each with the names that it is to have there. Of the same images the same bytes come out.

    ``docker`` says whether Docker is to read it. Raises NotFound, Damaged, OSError, PycoreError where it is broken off.
    """
    writer = Writer(target, docker)
    for root, names in images:
        send(store, root, writer.sink(names), platform=platform, progress=progress, cancel=cancel)
    writer.finish()


def load(
    store: Store,
    found: Found,
    *,
    platform: documents.Platform | None = None,
    progress: Progress = quiet,
    cancel: threading.Event | None = None,
) -> documents.Image:
    """Bring an image into the store, and let its names lead to it. Raises like :func:`pycore_images.fetching.fetch`."""
    from pycore_images.fetching import fetch

    image = fetch(store, found.source, platform=platform, progress=progress, cancel=cancel)
    for name in found.names:
        store.tag(name, image.root)
    return image
