"""Containers with the network sections that a test gives them, and a host in memory."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_network.bridge import Bridge
from pycore_network.host import HostNetwork
from pycore_network.memberships import Networks
from pycore_network.names import Names
from pycore_network.networks import NetworkTable

Make = Callable[..., Container]
SECTIONS = {"bridge": (Networks, Bridge, Names), "host": (HostNetwork, Names), "none": (Names,)}


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def view(kernel: FakeKernel) -> Callable[[], Host]:
    """The host as each new plan sees it."""
    return lambda: Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))


@pytest.fixture
def make() -> Make:
    """``make("shop/web", tables={"back": {"subnets": [...]}}, networks=["back"], ports=["8080:80"])``."""

    def container(
        full_name: str = "shop/web",
        *,
        driver: str = "bridge",
        tables: dict[str, dict[str, Any]] | None = None,
        **fields: Any,
    ) -> Container:
        app_name, _, name = full_name.partition("/")
        named = {word: {NetworkTable: NetworkTable(**values)} for word, values in (tables or {}).items()}
        sections = {
            kind: kind.model_validate({key: value for key, value in fields.items() if key in kind.model_fields})
            for kind in SECTIONS[driver]
        }
        app = App(app_name, Path("/"), {"network": named})
        identity = sha256(full_name.encode()).hexdigest()[:12]
        return Container(app, name, {"network": driver}, sections, identity)

    return container
