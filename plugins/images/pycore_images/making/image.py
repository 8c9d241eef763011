"""A new image: what it is made of, taken into the store in the same way as one from elsewhere."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pycore.errors import PycoreError

from pycore_images import documents
from pycore_images.archives.files import Segment
from pycore_images.content import (
    CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    LAYER,
    MANIFEST,
    Descriptor,
    Progress,
    Stream,
    described,
    quiet,
)
from pycore_images.making.layer import NewLayer
from pycore_images.store import Store

_KEPT = ("architecture", "os", "os.version", "os.features", "variant", "author", "config")
"""What a new configuration takes over from that of its base."""


@dataclass(frozen=True)
class Making:
    """How an image is made, and who is told meanwhile."""

    base: documents.Image | None = None
    """What the new one stands on."""
    platform: documents.Platform | None = None
    """Without a base; this host's where it is None."""
    created_by: str = ""
    """The command, for the history."""
    message: str = ""
    author: str = ""
    created: datetime | None = None
    """Now, where it is None."""
    progress: Progress = quiet
    cancel: threading.Event | None = None
    taken: Callable[[documents.Image], None] = lambda _image: None
    """Gives it a name, when it is there and nobody can have collected it yet."""

    def check(self) -> None:
        """Raises PycoreError when it is broken off."""
        if self.cancel is not None and self.cancel.is_set():
            raise PycoreError("broken off")


def make(store: Store, making: Making, layer: NewLayer | None, config: Mapping[str, Any]) -> documents.Image:
    """The image of a base, of a layer on it, and of a table ``config``. Raises OSError, PycoreError."""
    from pycore_images.fetching import fetch

    source = MadeSource(store, making, layer, config)
    return fetch(store, source, progress=making.progress, cancel=making.cancel, taken=making.taken)


class MadeSource:
    """A :class:`pycore_images.content.Source`."""

    name = "the new image"
    at_hand = True

    def __init__(self, store: Store, making: Making, layer: NewLayer | None, config: Mapping[str, Any]) -> None:
        base = making.base
        self._store, self._layer = store, layer
        layers = [*base.manifest.layers] if base else []
        docker = base is not None and base.descriptor.media_type == DOCKER_MANIFEST
        if layer:
            media_type = f"{DOCKER_LAYER}.gzip" if docker else f"{LAYER}+gzip"
            layers.append(Descriptor(media_type, layer.digest, layer.size))
        document = documents.encode(_configuration(making, layer, config))
        about = described(document, base.manifest.config.media_type if base else CONFIG)
        manifest = documents.manifest_of(about, layers, DOCKER_MANIFEST if docker else MANIFEST)
        self._root = described(manifest, DOCKER_MANIFEST if docker else MANIFEST)
        self._documents = {self._root.digest: manifest, about.digest: document}

    def root(self) -> Descriptor:
        return self._root

    def document(self, descriptor: Descriptor) -> bytes:
        return self._documents[descriptor.digest]

    def blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Stream]:
        if self._layer and descriptor.digest == self._layer.digest:
            return contextlib.nullcontext(self._layer.read(offset))
        return self._kept(descriptor, offset)

    @contextlib.contextmanager
    def _kept(self, descriptor: Descriptor, offset: int) -> Generator[Stream, None, None]:
        """A layer of the base, should its unpacked tree have gone."""
        with contextlib.ExitStack() as stack:
            fd = self._store.open_blob(descriptor.digest)
            file = stack.enter_context(open(fd, "rb", buffering=0))
            yield Segment(file.fileno(), offset, descriptor.size)


def _configuration(making: Making, layer: NewLayer | None, config: Mapping[str, Any]) -> dict[str, Any]:
    before: Mapping[str, Any] = making.base.config.document if making.base else {}
    platform = making.platform or documents.host_platform()
    created = (making.created or datetime.now(UTC)).astimezone(UTC).isoformat().replace("+00:00", "Z")
    document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant and not making.base:
        document["variant"] = platform.variant
    document |= {key: copy.deepcopy(before[key]) for key in _KEPT if before.get(key) is not None}
    step = {"created": created, "created_by": making.created_by, "author": making.author, "comment": making.message}
    diff_ids = [*(making.base.config.diff_ids if making.base else ()), *([layer.diff_id] if layer else ())]
    document |= {
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [
            *(before.get("history") or []),
            {key: value for key, value in step.items() if value} | ({} if layer else {"empty_layer": True}),
        ],
    }
    return document | ({"author": making.author} if making.author else {})
