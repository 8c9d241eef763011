"""Images in a store, put there by hand: layers that are real archives, unpacked beside."""

from __future__ import annotations

import gzip
import hashlib
import io
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pycore_images import documents
from pycore_images.content import CONFIG, INDEX, LAYER, MANIFEST, Descriptor, Stream
from pycore_images.store import Store


def keep(store: Store, *layers: str, **config: Any) -> Descriptor:
    """The manifest of an image with a layer for each word, which has a file of that name; other images may have the
    same. ``config`` is what it says of running it, in Docker's words.
    """
    return replace(keep_for(store, documents.host_platform().architecture, *layers, **config), platform=None)


def keep_for(store: Store, architecture: str, *layers: str, **config: Any) -> Descriptor:
    """The same for machines of a kind; for an index, which is to know of them."""
    kept = [_layer(store, word) for word in layers]
    document: dict[str, Any] = {
        "created": "2026-03-01T12:00:00Z", "os": "linux", "architecture": architecture,
        "config": config, "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in kept]},
        "history": [{"created_by": f"COPY {word} /"} for word in layers],
    }  # fmt: skip
    about = store.add_document(documents.encode(document), CONFIG)
    manifest = store.add_document(documents.manifest_of(about, [layer for layer, _ in kept]), MANIFEST)
    return replace(manifest, platform={"os": "linux", "architecture": architecture})


def keep_index(store: Store, *manifests: Descriptor) -> Descriptor:
    """An index that names them."""
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [documents.describe(each) for each in manifests]}
    return store.add_document(documents.encode(document), INDEX)


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def archive(word: str) -> bytes:
    """A layer: one file, named and filled with the word."""
    file = io.BytesIO()
    data = word.encode() * 5000
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo(word)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _layer(store: Store, word: str) -> tuple[Descriptor, str]:
    """As it comes, and its diff id."""
    data = archive(word)
    blob = store.add_blob(io.BytesIO(gzip.compress(data, mtime=0)), f"{LAYER}+gzip")
    diff_id = digest_of(data)
    if not store.has_layer(diff_id):
        incoming = store.ingest / secrets.token_hex(8)
        (incoming / "tree").mkdir(parents=True)
        (incoming / "tree" / word).write_text(word * 5000)
        store.take_layer(incoming, diff_id)
    return blob, diff_id


class KeptSource:
    """An image of a store for whoever wants it elsewhere: a :class:`pycore_images.content.Source`."""

    name = "the image"
    at_hand = True

    def __init__(self, store: Store, root: Descriptor) -> None:
        self._store, self._root = store, root

    def root(self) -> Descriptor:
        return self._root

    def document(self, descriptor: Descriptor) -> bytes:
        return self._store.blob(descriptor.digest)

    @contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Stream]:
        yield io.BytesIO(self._store.blob(descriptor.digest)[offset:])
