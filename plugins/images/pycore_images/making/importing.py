"""An image of plain files: a tar of a root file system, or a directory, becomes its one layer."""

from __future__ import annotations

from collections.abc import Sequence

from pycore.launch.archive import watched
from pycore.linux.compression import Unreadable, decompressed

from pycore_images import documents
from pycore_images.archives.opening import Wait, at_once
from pycore_images.content import Damaged
from pycore_images.making import changes
from pycore_images.making.image import Making, make
from pycore_images.making.layer import packed, taken
from pycore_images.store import Store


def import_stream(
    store: Store, fd: int, name: str, making: Making, instructions: Sequence[str] = (), wait: Wait = at_once
) -> documents.Image:
    """Of a tar that a descriptor has, however it is compressed. Raises OSError, PycoreError, UsageError."""
    config = changes.apply({}, instructions)
    try:
        with taken(store, decompressed(watched(fd, wait)), making.check) as layer:
            return make(store, making, layer, config)
    except Unreadable as error:
        raise Damaged(f"{name} is damaged: {error}") from error


def import_directory(store: Store, path: str, making: Making, instructions: Sequence[str] = ()) -> documents.Image:
    """Of all that is in a directory. Raises OSError, PycoreError, UsageError."""
    config = changes.apply({}, instructions)
    with packed(store, path, making.check, layer=False) as layer:
        return make(store, making, layer, config)
