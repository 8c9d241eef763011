"""A container's changes as a layer on its image, and how it runs as what the new image says of itself."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Generator, Sequence
from typing import Any, cast

from pycore.errors import PycoreError
from pycore.hookspecs import Snapshot
from pycore.linux import rmtree
from pycore.spec import Container

from pycore_images import documents
from pycore_images.making import changes
from pycore_images.making.image import Making, make
from pycore_images.making.layer import packed
from pycore_images.store import Store


def commit(
    store: Store, container: Container, snapshot: Snapshot, making: Making, instructions: Sequence[str] = ()
) -> documents.Image:
    """The image that a container has become; ``making`` has its image as the base, if that is in the store. One of a
    directory becomes the first layer of an image, whole. Raises OSError, PycoreError, UsageError.
    """
    if container.image.name == "host":
        raise PycoreError(
            f"{container.full_name} has this host's own files: they are not made an image of",
            hint="`pycore export` writes them out, `pycore import` takes a directory of yours",
        )
    config = changes.apply(_as_it_runs(container, making.base), instructions)
    if making.base is None:
        with snapshot.view() as tree, packed(store, tree, making.check, layer=False) as layer:
            return make(store, making, layer, config)
    with _frozen(store, snapshot) as tree:
        if not os.listdir(tree):
            return make(store, making, None, config)
        with packed(store, tree, making.check, layer=True) as layer:
            return make(store, making, layer, config)


@contextlib.contextmanager
def _frozen(store: Store, snapshot: Snapshot) -> Generator[str, None, None]:
    """What the container has changed, as a tree beside the store's, which is gone after."""
    store.prepare()
    tree = str(store.ingest / f"{secrets.token_hex(16)}.commit")
    try:
        snapshot.commit(tree)
        yield tree
    finally:
        with contextlib.suppress(FileNotFoundError):
            rmtree.remove(tree)


def _as_it_runs(container: Container, base: documents.Image | None) -> dict[str, Any]:
    """The table of an image, with how the container runs, where that differs: the spec has said so."""
    config = cast("dict[str, Any]", (base.config.document.get("config") if base else None) or {})
    running = documents.run_table(container.into_image())
    return {**config, **{key: value for key, value in running.items() if value or config.get(key)}}
