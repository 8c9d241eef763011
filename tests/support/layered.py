"""Images made in memory, and a source that has one and does as it is told."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pycore_images import documents
from pycore_images.content import CONFIG, LAYER, MANIFEST, Descriptor, Stream


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def entry(name: str, data: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes | None]:
    """For :func:`tar`: a file, or without data a directory, unless the fields say otherwise."""
    info = tarfile.TarInfo(name)
    info.size = len(data or b"")
    info.type = tarfile.REGTYPE if data is not None else tarfile.DIRTYPE
    info.mode = 0o644 if data is not None else 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*entries: tuple[tarfile.TarInfo, bytes | None], form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, None if data is None else io.BytesIO(data))
    return made.getvalue()


def squeezed(data: bytes) -> bytes:
    """By gzip, the same each time."""
    return gzip.compress(data, mtime=0)


class MadeImage:
    """A :class:`pycore_images.content.Source`: an image of these layers, given as tars."""

    name = "a test's image"
    at_hand = False

    def __init__(
        self,
        tars: Sequence[bytes],
        compress: Callable[[bytes], bytes] = squeezed,
        media_type: str = f"{LAYER}+gzip",
        config: dict[str, Any] | None = None,
    ) -> None:
        self.content: dict[str, bytes] = {}
        self.layers = [self.add(compress(each), media_type) for each in tars]
        self.diff_ids = [digest(each) for each in tars]
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        document = {"os": "linux", "architecture": "amd64", "rootfs": rootfs} | (config or {})
        self.config = self.add(documents.encode(document), CONFIG)
        self.manifest = self.add(documents.manifest_of(self.config, self.layers), MANIFEST)
        self.asked: list[tuple[Descriptor, int]] = []
        """Which layers, and from where."""
        self.lock = threading.Lock()

    def add(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor(media_type, digest(data), len(data))
        self.content[descriptor.digest] = data
        return descriptor

    def root(self) -> Descriptor:
        return self.manifest

    def document(self, descriptor: Descriptor) -> bytes:
        return self.content[descriptor.digest]

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Generator[Stream, None, None]:
        with self.lock:
            self.asked.append((descriptor, offset))
        yield self.stream(descriptor, offset)

    def stream(self, descriptor: Descriptor, offset: int) -> Stream:
        return io.BytesIO(self.content[descriptor.digest][offset:])
