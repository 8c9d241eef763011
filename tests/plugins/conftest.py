"""A virtual environment as a user has it: pycore from its wheel, and third-party drivers from theirs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.needs import ROOT

SAMPLES = [ROOT / "tests/plugins/sample_network", ROOT / "tests/plugins/sample_storage"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's directory. Nothing is downloaded: what pycore depends on is the tests' own."""
    base = tmp_path_factory.mktemp("installed")
    wheels, place = base / "wheels", base / "venv"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    sources = [ROOT, *SAMPLES]
    _run([*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, *sources])
    venv.create(place)
    purelib = next(place.glob("lib/python*/site-packages"))
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    python = place / "bin/python"
    _run([*pip, f"--python={python}", "install", "--no-index", "--no-deps", *wheels.glob("*.whl")])
    return place


def _run(command: list[object]) -> None:
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
