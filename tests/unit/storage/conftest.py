"""A container with the storage fields that a test gives it, and a host in memory to describe it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.image import Image
from pycore.spec import App, Container, Process, Sections
from pycore.testing.fake import FakeKernel
from pycore_images import paths
from pycore_storage.root import Root, VolatileRoot
from pycore_storage.volumes import Mounts, NamedVolume

Make = Callable[..., Container]


@pytest.fixture
def make(host: Host) -> Make:
    """``make(image="/srv/root", volumes=["data:/data"], declared={"data": None})``."""

    def container(
        image: str = "host",
        name: str = "web",
        identity: str = "c0ffee",
        declared: dict[str, str | None] | None = None,
        of: Image | None = None,
        of_volume: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Container:
        tables: dict[str, Sections] = {
            volume: {NamedVolume: NamedVolume(name=shared, **(of_volume or {}))}
            for volume, shared in (declared or {}).items()
        }
        containers: dict[str, Container] = {}
        app = App("shop", Path("/spec"), {"volume": tables}, containers=containers)
        root = {key: fields.pop(key) for key in ("read_only", "size", "volatile") if key in fields}
        sections = {
            Process: Process(image=image),
            VolatileRoot: VolatileRoot.model_validate(root),
            Root: Root.model_validate({key: value for key, value in root.items() if key != "volatile"}),
            Mounts: Mounts.model_validate(fields),
        }
        made = Container(app, name, {"storage": "overlayfs"}, sections, id=identity)
        found = paths.pycore_image(made, host)
        containers[name] = made.made_of(of or (found.image if found else Image()))
        return containers[name]

    return container


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel({"/srv/root/": "", "/var/lib/pycore/": "", "/run/pycore/": ""})


@pytest.fixture
def host(kernel: FakeKernel) -> Host:
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
