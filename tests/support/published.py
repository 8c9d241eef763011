"""Images that can be run, in a registry: made of the host's own programs, pushed by our own protocol."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pycore_images import documents
from pycore_images.content import CONFIG, LAYER, MANIFEST, Descriptor
from pycore_images.reference import parse
from pycore_images.registry.hosts import Hosts
from pycore_images.registry.push import RegistrySink

from support.needs import ROOT

sys.path.append(str(ROOT / "tests/bench"))
from image import make_root

PROGRAMS = ("sh", "cat", "sleep", "id", "ls", "true", "env")


@cache
def programs(directory: Path) -> bytes:
    """A layer with a few programs, and two users, as an archive."""
    root = make_root(directory / "root", PROGRAMS)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:1234:1235::/srv:/bin/sh\n", encoding="ascii")
    (root / "etc/group").write_text("root:x:0:\nweb:x:1235:\nextra:x:77:web\n", encoding="ascii")
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    pack = ["tar", "-C", root, "--owner=0", "--group=0", "-c", "."]
    return subprocess.run(pack, capture_output=True, check=True).stdout


def publish(name: str, archives: Sequence[bytes], config: Mapping[str, Any] | None = None) -> Descriptor:
    """Push an image; its manifest. ``config`` is what it says of running it, in Docker's words."""
    contents = [(gzip.compress(data, 1, mtime=0), f"{LAYER}+gzip") for data in archives]
    layers = [_descriptor(data, kind) for data, kind in contents]
    document: dict[str, Any] = {
        "os": "linux", "architecture": documents.host_platform().architecture, "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [_descriptor(data, "").digest for data in archives]},
    }  # fmt: skip
    about = documents.encode(document)
    contents.append((about, CONFIG))
    manifest = documents.manifest_of(_descriptor(about, CONFIG), layers)
    sink = RegistrySink(parse(name), Hosts(), {})
    for data, kind in contents:
        if not sink.has(_descriptor(data, kind)):
            sink.put(_descriptor(data, kind), io.BytesIO(data))
    root = _descriptor(manifest, MANIFEST)
    sink.finish(root, manifest)
    return root


def _descriptor(data: bytes, kind: str) -> Descriptor:
    return Descriptor(kind, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
