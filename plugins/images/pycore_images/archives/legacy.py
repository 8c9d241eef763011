"""Images as Docker before 1.10 saved them: a directory for each layer, each with a word about the one below it.

``repositories`` names the uppermost layer of each image; LAYER/json has its configuration and the name of the layer
below; LAYER/layer.tar is the layer, a plain tar. Digests were not known then, so each layer is read once for its own.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any, cast

from pycore.errors import UsageError

from pycore_images import documents, reference
from pycore_images.archives import docker
from pycore_images.archives.files import Files, has, read
from pycore_images.archives.found import Found
from pycore_images.archives.source import FileSource
from pycore_images.content import MAX_DOCUMENT, Damaged

REPOSITORIES = "repositories"


def is_legacy(files: Files) -> bool:
    """Whether there is a ``repositories``."""
    return has(files, REPOSITORIES)


def images(files: Files) -> list[Found]:
    """Every image that has a name. Raises Damaged, NotFound."""
    names: dict[str, list[str]] = {}
    for name, layer in _tags(files):
        names.setdefault(layer, []).append(name)
    return [Found(_source(files, layer), tuple(found)) for layer, found in names.items()]


def _tags(files: Files) -> Iterator[tuple[str, str]]:
    table = documents.Fields(
        {REPOSITORIES: documents.read_json(read(files, REPOSITORIES, MAX_DOCUMENT), REPOSITORIES)}, REPOSITORIES
    ).value(REPOSITORIES, dict, {})
    for name in table:
        for tag, layer in documents.Fields(table, REPOSITORIES).texts_by_name(name).items():
            try:
                yield str(reference.parse(f"{name}:{tag}")), _checked(layer)
            except UsageError as error:
                raise Damaged(f"an image in it has a name that is none: {error.message}", hint=error.hint) from error


def _checked(layer: str) -> str:
    if not layer or layer in (".", "..") or posixpath.basename(layer) != layer:
        raise Damaged(f"{REPOSITORIES} names a layer {layer[:100]!r}")
    return layer


def _source(files: Files, uppermost: str) -> FileSource:
    chain: list[tuple[str, dict[str, Any]]] = []
    layer = uppermost
    while layer:
        if len(chain) >= documents.MAX_LAYERS:
            raise Damaged(f"an image in it has more than {documents.MAX_LAYERS} layers, or they lead in a circle")
        document = cast("dict[str, Any]", documents.read_json(read(files, f"{layer}/json", MAX_DOCUMENT), layer))
        parent = documents.Fields(document, f"{layer}/json").text("parent")
        chain.insert(0, (layer, document))
        layer = _checked(parent) if parent else ""
    places = [f"{layer}/layer.tar" for layer, _ in chain]
    config = _config([document for _, document in chain], [docker.digest_of(files, place) for place in places])
    return docker.source(files, json.dumps(config).encode(), places)


def _config(layers: list[dict[str, Any]], diff_ids: list[str]) -> dict[str, Any]:
    """A configuration as images have it now."""
    last = layers[-1]
    kept = ("architecture", "os", "variant", "author", "created", "config")
    return {key: last[key] for key in kept if last.get(key) is not None} | {
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [_step(each) for each in layers],
    }


def _step(layer: dict[str, Any]) -> dict[str, Any]:
    command = documents.Fields(layer, "a layer").table("container_config").texts("Cmd")
    kept = {key: layer[key] for key in ("created", "author", "comment") if layer.get(key)}
    return kept | {"created_by": " ".join(command)}
