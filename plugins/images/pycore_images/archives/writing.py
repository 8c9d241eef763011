"""Images written as files: an OCI layout, in a directory or an archive, and what ``docker load`` reads.

The archive for Docker is a layout with a ``manifest.json`` beside it, as Docker itself writes it since version 25: so
layers stay as they are, compressed or not, and an image keeps its digest on its way.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pycore.errors import NotFound

from pycore_images import documents, reference
from pycore_images.archives.docker import MANIFEST_FILE
from pycore_images.archives.layout import INDEX_FILE, LAYOUT, LAYOUT_FILE, WHOLE_NAME
from pycore_images.archives.source import BLOBS
from pycore_images.archives.targets import Target
from pycore_images.content import INDEX, INDEXES, MANIFESTS, Damaged, Descriptor, Stream
from pycore_images.store import REF_NAME


class Writer:
    """Puts images into one archive or layout; what several of them have is there once."""

    def __init__(self, target: Target, docker: bool = False) -> None:
        """``docker`` says whether Docker is to read it."""
        self._target, self._docker = target, docker
        self._there: set[str] = set()
        self._documents: dict[str, bytes] = {}
        self._images: list[tuple[Descriptor, Sequence[str]]] = []
        self._put(LAYOUT_FILE, LAYOUT)

    def sink(self, names: Sequence[str]) -> WriterSink:
        """For one image, which is to have these names: references in full."""
        return WriterSink(self, names)

    def finish(self) -> None:
        """Write, last, what names everything else."""
        if self._docker:
            self._put(MANIFEST_FILE, documents.encode([*self._docker_entries()]))
        self._put(INDEX_FILE, self._index())

    def has(self, descriptor: Descriptor) -> bool:
        """Whether content is there."""
        return descriptor.digest in self._there or self._target.has(_place(descriptor), descriptor.size)

    def put(self, descriptor: Descriptor, stream: Stream) -> None:
        """Take content. Raises Damaged where it is not what its descriptor says."""
        if descriptor.digest in self._there:
            return
        verified = _Verified(descriptor, stream)
        self._target.put(_place(descriptor), descriptor.size, verified)
        self._there.add(descriptor.digest)

    def note(self, descriptor: Descriptor, document: bytes) -> None:
        """Remember a manifest or index: the image's own ``manifest.json`` is made of them."""
        self._documents[descriptor.digest] = document

    def name(self, root: Descriptor, names: Sequence[str]) -> None:
        """Let names lead to an image whose content is there."""
        self._images.append((root, names))

    def _put(self, name: str, data: bytes) -> None:
        if not (name == LAYOUT_FILE and self._target.has(name, len(data))):
            self._target.put(name, len(data), io.BytesIO(data))

    def _index(self) -> bytes:
        entries = [entry for root, names in self._images for entry in _entries(root, names)]
        taken = {name for entry in entries if (name := entry.annotations.get(REF_NAME))}
        before = self._target.before()
        for entry in documents.parse_index(before).manifests if before else ():
            if entry not in entries and entry.annotations.get(REF_NAME) not in taken:
                entries.append(entry)
        return documents.encode(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [documents.describe(entry) for entry in entries]}
        )

    def _docker_entries(self) -> Iterable[dict[str, Any]]:
        for root, names in self._images:
            manifest = self._manifest(root)
            tags = [each for each in map(reference.parse, names) if each.tag]
            yield {
                "Config": _place(manifest.config),
                "RepoTags": [f"{each.name}:{each.tag}" for each in tags] or None,
                "Layers": [_place(layer) for layer in manifest.layers],
            }

    def _manifest(self, root: Descriptor) -> documents.Manifest:
        """The one manifest that Docker gets: of an index, that for this host, or the first that is there."""
        found = documents.parse_root(self._documents[root.digest], root.media_type)
        if isinstance(found, documents.Manifest):
            return found
        there = documents.Index(tuple(each for each in found.manifests if each.digest in self._documents))
        try:
            chosen = documents.choose(there, documents.host_platform())
        except NotFound:
            if not there.manifests:
                raise
            chosen = there.manifests[0]
        return self._manifest(chosen)


class WriterSink:
    """One image's way into a :class:`Writer`: a :class:`pycore_images.content.Sink`."""

    parallel = False

    def __init__(self, writer: Writer, names: Sequence[str]) -> None:
        self._writer, self._names = writer, names

    def has(self, descriptor: Descriptor) -> bool:
        return self._writer.has(descriptor) and descriptor.media_type not in MANIFESTS | INDEXES

    def put(self, descriptor: Descriptor, stream: Stream) -> None:
        if descriptor.media_type in MANIFESTS | INDEXES:
            data = b"".join(iter(lambda: stream.read(descriptor.size + 1), b""))
            self._writer.note(descriptor, data)
            stream = io.BytesIO(data)
        self._writer.put(descriptor, stream)

    def finish(self, root: Descriptor, document: bytes) -> None:
        self.put(root, io.BytesIO(document))
        self._writer.name(root, self._names)


class _Verified:
    """A stream that ends only as the content that it should be."""

    def __init__(self, descriptor: Descriptor, stream: Stream) -> None:
        self._descriptor, self._stream = descriptor, stream
        self._digest, self._through = hashlib.sha256(), 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        self._through += len(data)
        whole = self._through == self._descriptor.size and f"sha256:{self._digest.hexdigest()}"
        if self._through > self._descriptor.size or (not data and whole != self._descriptor.digest):
            hint = "`pycore image rm` what has it, and pull it anew"
            raise Damaged(f"{self._descriptor.digest} is not what its digest says", hint=hint)
        return data


def _place(descriptor: Descriptor) -> str:
    return f"{BLOBS}{descriptor.hex}"


def _entries(root: Descriptor, names: Sequence[str]) -> Iterable[Descriptor]:
    """In the index: under the specification's annotation for a name, and under that which Docker reads."""
    bare = replace(root, annotations={})
    for name in names:
        yield replace(bare, annotations={WHOLE_NAME: name, REF_NAME: name})
    if not names:
        yield bare
