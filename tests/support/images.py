"""A small image in memory, and a pull of a whole one, as bytes."""

from __future__ import annotations

import hashlib
import io
import json
import random
from dataclasses import dataclass

from pycore_images.content import CONFIG, LAYER, MANIFEST, Descriptor, Source


@dataclass(frozen=True)
class Sample:
    """A manifest, a config, and layers that nobody unpacks."""

    root: Descriptor
    document: bytes
    config: Descriptor
    config_data: bytes
    layers: tuple[tuple[Descriptor, bytes], ...]

    @property
    def contents(self) -> list[tuple[Descriptor, bytes]]:
        """What has to be there before the manifest."""
        return [(self.config, self.config_data), *self.layers]


def descriptor(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


def sample(*sizes: int, seed: int = 0) -> Sample:
    """With layers of these sizes."""
    chance = random.Random(f"{sizes} {seed}")
    datas = [chance.randbytes(size) for size in sizes]
    layers = tuple((descriptor(data, LAYER), data) for data in datas)
    config_data = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
    config = descriptor(config_data, CONFIG)
    document = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": entry(config),
            "layers": [entry(layer) for layer, _ in layers],
        }
    ).encode()
    return Sample(descriptor(document, MANIFEST), document, config, config_data, layers)


def entry(one: Descriptor) -> dict[str, object]:
    """A descriptor as JSON has it."""
    return {"mediaType": one.media_type, "digest": one.digest, "size": one.size}


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def read_all(source: Source, of: Descriptor, offset: int = 0) -> bytes:
    """A layer, to its end."""
    with source.blob(of, offset) as blob:
        return b"".join(iter(lambda: blob.read(1 << 16), b""))
