from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command


@pytest.fixture
def pycore(tmp_path: Path) -> Iterator[Command]:
    """The command, with directories of its own; whatever the test does, nothing of it stays."""
    command = Command(tmp_path)
    yield command
    command.end()
