"""A container with the storage fields that a test gives it, and a host in memory to describe it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.spec import App, Container, Process, Sections
from pycore.testing.fake import FakeKernel
from pycore_storage.root import Root
from pycore_storage.volumes import Mounts, NamedVolume

Make = Callable[..., Container]


@pytest.fixture
def make() -> Make:
    """``make(image="/srv/root", volumes=["data:/data"], declared={"data": None})``."""

    def container(
        image: str = "host",
        name: str = "web",
        identity: str = "c0ffee",
        declared: dict[str, str | None] | None = None,
        **fields: Any,
    ) -> Container:
        tables: dict[str, Sections] = {
            volume: {NamedVolume: NamedVolume(name=shared)} for volume, shared in (declared or {}).items()
        }
        containers: dict[str, Container] = {}
        app = App("shop", Path("/spec"), {"volume": tables}, containers)
        read_only = fields.pop("read_only", False)
        sections = {
            Process: Process(image=image),
            Root: Root(read_only=read_only),
            Mounts: Mounts.model_validate(fields),
        }
        containers[name] = Container(app, name, {"storage": "overlayfs"}, sections, id=identity)
        return containers[name]

    return container


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel({"/srv/root/": "", "/srv/root.tar": "a tar file", "/var/lib/pycore/": "", "/run/pycore/": ""})


@pytest.fixture
def host(kernel: FakeKernel) -> Host:
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
