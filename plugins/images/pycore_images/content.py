"""Content by its digest: the words between whoever has an image, whoever keeps it, and whoever wants it.

Terms are those of the OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pycore.errors import PycoreError

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."

INDEX = f"{OCI}index.v1+json"
MANIFEST = f"{OCI}manifest.v1+json"
CONFIG = f"{OCI}config.v1+json"
LAYER = f"{OCI}layer.v1.tar"
DOCKER_LIST = f"{DOCKER}distribution.manifest.list.v2+json"
DOCKER_MANIFEST = f"{DOCKER}distribution.manifest.v2+json"
DOCKER_CONFIG = f"{DOCKER}container.image.v1+json"
DOCKER_LAYER = f"{DOCKER}image.rootfs.diff.tar"

INDEXES = frozenset({INDEX, DOCKER_LIST})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})

MAX_DOCUMENT = 4 << 20
"""Bytes of a manifest, index or config: what registries accept at least (distribution-spec, Push), and take at most."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Damaged(PycoreError):
    """Content is not what its digest, its length or its format says, or is beyond all measure."""


def is_digest(text: str) -> bool:
    """Whether a text is a digest as pycore takes them: SHA-256, in small letters."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True)
class Descriptor:
    """What a piece of content is, its digest, and its length in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)
    platform: Mapping[str, str] | None = field(default=None, compare=False)
    """In an index: ``architecture``, ``os``, and perhaps ``variant``."""

    @property
    def hex(self) -> str:
        """The digest without its algorithm: safe as a file name."""
        return self.digest.removeprefix("sha256:")


def described(data: bytes, media_type: str) -> Descriptor:
    """The descriptor of a whole document."""
    return Descriptor(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


class Stream(Protocol):
    """Bytes, one after the other."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


class Source(Protocol):
    """One image somewhere else: in a registry, an archive, a layout. Nothing that it gives is to be believed."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def at_hand(self) -> bool:
        """Whether what it has can be had again at no cost: nothing is then kept to go on from."""
        ...

    def root(self) -> Descriptor:
        """The manifest or the index that the image's name leads to. Raises NotFound."""
        ...

    def document(self, descriptor: Descriptor) -> bytes:
        """A manifest, index or config, whole; at most :data:`MAX_DOCUMENT` bytes. The caller checks its digest."""
        ...

    def blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Stream]:
        """A layer from a place on. Called from several threads at once. Raises NotFound, or OSError and PycoreError
        where it breaks off; it may then be asked again from where it broke off.
        """
        ...


class Sink(Protocol):
    """Where an image can be put: a registry, an archive, a layout. Content first, then what names it."""

    def has(self, descriptor: Descriptor) -> bool:
        """Whether it has that content already, or can take it from a neighbour without being sent it."""
        ...

    def put(self, descriptor: Descriptor, stream: Stream) -> None:
        """Take content. Called from several threads at once where :attr:`parallel` says so."""
        ...

    def finish(self, root: Descriptor, document: bytes) -> None:
        """Take the manifest or index, last, under the name that it is to have there."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether several contents may be put at once."""
        ...


Progress = Callable[[Descriptor, str, int], None]
"""Told of a layer, from any thread: what is done with it (``waiting``, ``downloading``, ``unpacking``, ``done``,
``there`` when it was already, ``retrying``), and how many of its bytes are through. It must not wait."""


def quiet(_layer: Descriptor, _word: str, _done: int) -> None:
    """A :data:`Progress` for nobody."""
