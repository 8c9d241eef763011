"""Images as ``docker save`` writes them: ``manifest.json``, and what it names.

The layers that it names are plain tars as a rule, and the digest of a plain tar is what the configuration calls its
diff id; so nothing has to be read to know what an archive has. Docker 25 and later write a layout with
``manifest.json`` beside it: that is read as a layout, and ``manifest.json`` only for its names.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pycore.errors import UsageError

from pycore_images import documents, reference
from pycore_images.archives.files import Files, has, read
from pycore_images.archives.found import Found
from pycore_images.archives.source import BLOBS, FileSource
from pycore_images.content import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    MAX_DOCUMENT,
    Damaged,
    Descriptor,
    described,
)

MANIFEST_FILE = "manifest.json"
_MAX_IMAGES = 1000
_CHUNK = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")
_COMPRESSED = {b"\x1f\x8b": ".gzip", b"\x28\xb5\x2f\xfd": ".zstd"}
_UNREAD = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


@dataclass(frozen=True)
class Entry:
    """What ``manifest.json`` says of one image: names of files, and its own."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]
    """References in full."""


def is_docker(files: Files) -> bool:
    """Whether there is a ``manifest.json``."""
    return has(files, MANIFEST_FILE)


def entries(files: Files) -> list[Entry]:
    """All images. Raises Damaged."""
    found = documents.read_json(read(files, MANIFEST_FILE, MAX_DOCUMENT), MANIFEST_FILE)
    if not isinstance(found, list) or len(cast("list[Any]", found)) > _MAX_IMAGES:
        raise Damaged(f"{MANIFEST_FILE} is no list of images, or one of more than {_MAX_IMAGES}")
    tables = [documents.Fields(item, MANIFEST_FILE) for item in cast("list[Any]", found)]
    return [_entry(table) for table in tables]


def images(files: Files) -> list[Found]:
    """Every image. Raises Damaged, NotFound."""
    return [Found(_source(files, entry), entry.tags) for entry in entries(files)]


def named(found: Sequence[Found], files: Files) -> list[Found]:
    """Images of a layout, with the names that they have in ``manifest.json``: some Dockers write them only there."""
    tags = {posixpath.basename(entry.config): entry.tags for entry in entries(files)}
    return [replace(each, names=each.names or tags.get(_config_of(each), ())) for each in found]


def _config_of(found: Found) -> str:
    """The name of its configuration's file in a layout; empty for an index."""
    source = found.source
    document = documents.parse_root(source.document(source.root()))
    return document.config.hex if isinstance(document, documents.Manifest) else ""


def _entry(fields: documents.Fields) -> Entry:
    tags: list[str] = []
    for text in fields.texts("RepoTags"):
        try:
            tags.append(str(reference.parse(text)))
        except UsageError as error:
            raise Damaged(f"an image in it has a name that is none: {error.message}", hint=error.hint) from error
    layers = fields.texts("Layers")
    if len(layers) > documents.MAX_LAYERS:
        raise Damaged(f"an image in it has {len(layers)} layers; {documents.MAX_LAYERS} are read at most")
    return Entry(_file(fields.text("Config")), tuple(map(_file, layers)), tuple(dict.fromkeys(tags)))


def _file(name: str) -> str:
    if not name or posixpath.normpath(name) != name or name.startswith(("/", "../")) or name in (".", ".."):
        raise Damaged(f"{MANIFEST_FILE} names a file {name[:100]!r}")
    return name


def _source(files: Files, entry: Entry) -> FileSource:
    data = read(files, entry.config, MAX_DOCUMENT)
    return source(files, data, entry.layers, _said_digest(entry.config))


def source(files: Files, data: bytes, layers: Sequence[str], digest: str = "") -> FileSource:
    """An image of a configuration and of layers in files, the lowest first. ``digest`` is the configuration's, where
    somebody says it.
    """
    config = described(data, DOCKER_CONFIG)
    if digest and config.digest != digest:
        raise Damaged(f"the configuration in {files.name} is not what its name says ({digest[:19]}...)")
    diff_ids = documents.parse_config(data, len(layers)).diff_ids
    parts = [_layer(files, place, diff_id) for place, diff_id in zip(layers, diff_ids, strict=True)]
    manifest = documents.manifest_of(config, parts, DOCKER_MANIFEST)
    root = described(manifest, DOCKER_MANIFEST)
    places = {part.digest: place for part, place in zip(parts, layers, strict=True)}
    return FileSource(files, files.name, root, {root.digest: manifest, config.digest: data}, places)


def _said_digest(name: str) -> str:
    """Files of configurations are called by their digests."""
    base = posixpath.basename(name).removesuffix(".json")
    return f"sha256:{base}" if _HEX.fullmatch(base) else ""


def _layer(files: Files, place: str, diff_id: str) -> Descriptor:
    with files.open(place) as stream:
        head = stream.read(6)
        for magic, words in _UNREAD.items():
            if head.startswith(magic):
                raise Damaged(f"{place} in {files.name} is compressed with {words}, which layers are not")
        suffix = next((suffix for magic, suffix in _COMPRESSED.items() if head.startswith(magic)), "")
    if not suffix:
        return Descriptor(DOCKER_LAYER, diff_id, files.size(place))
    hexadecimal = posixpath.basename(place)
    if place.startswith(BLOBS) and _HEX.fullmatch(hexadecimal):
        return Descriptor(DOCKER_LAYER + suffix, f"sha256:{hexadecimal}", files.size(place))
    return Descriptor(DOCKER_LAYER + suffix, digest_of(files, place), files.size(place))


def digest_of(files: Files, place: str) -> str:
    """Of a file's content."""
    digest = hashlib.sha256()
    with files.open(place) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
