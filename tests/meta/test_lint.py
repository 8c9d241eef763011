"""The checkers of `pyproject.toml` find nothing: each is a test, so that one command runs them all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.needs import ROOT

BIN = Path(sys.executable).parent
"""The checkers of the environment that runs the tests."""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "core", "plugins", "tests"], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "core", "plugins", "tests"], id="ruff-format"),
        pytest.param(["mypy"], id="mypy"),
        pytest.param(["pyright", "--pythonpath", sys.executable], id="pyright"),
        pytest.param(["lint-imports", "--no-cache"], id="import-contracts"),
    ],
)
def test_checker_finds_nothing(command: list[str]) -> None:
    program, *arguments = command
    run = subprocess.run([BIN / program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
