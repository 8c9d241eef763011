"""pytest fixtures for plugins: ``pytest_plugins = ["pycore.testing.fixtures"]`` in the top conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pycore.engine import Engine
from pycore.plugins import Plugins, load_plugins
from pycore.testing.fake import FakeKernel
from pycore.testing.launcher import FakeSpawner


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The installed plugins."""
    return load_plugins()


@pytest.fixture
def fake_kernel() -> FakeKernel:
    """A host in memory."""
    return FakeKernel()


@pytest.fixture
def fake_spawner(fake_kernel: FakeKernel) -> FakeSpawner:
    """The parent of the containers on the host in memory; ends their programs when the test says so."""
    return FakeSpawner(fake_kernel)


@pytest.fixture
def engine(tmp_path: Path, plugins: Plugins, fake_kernel: FakeKernel, fake_spawner: FakeSpawner) -> Iterator[Engine]:
    """An engine on the host in memory; its own records are in a temporary directory."""
    with Engine(
        tmp_path / "run",
        tmp_path / "data",
        plugins=plugins,
        kernel=fake_kernel,
        starts=1,
        launcher=fake_spawner.connect,
    ) as engine:
        yield engine
