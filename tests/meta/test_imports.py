"""Who imports what: heavy libraries stay where they are needed, system calls where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.needs import ROOT

HEAVY = {"asyncio", "importlib.metadata", "pluggy", "pydantic", "pyroute2", "pyseccomp", "rich"}
"""Each costs more to import than a container to start."""

SLOW_TO_START = {"argparse", "dataclasses", "enum", "json", "pathlib", "re", "socket", "subprocess", "typing"}
"""Cheap for a process that stays, dear for one that lives a few milliseconds."""

SYSTEM_CALLS = {
    ROOT / "core/pycore/linux",
    ROOT / "plugins/isolation/pycore_isolation/seccomp.py",  # pyseccomp wraps libseccomp with ctypes
}
"""The only places that may touch ctypes."""

SOURCES = sorted([*ROOT.glob("core/pycore/**/*.py"), *ROOT.glob("plugins/*/pycore_*/**/*.py")])


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("pycore.client", HEAVY | SLOW_TO_START), ("pycore.launch.spawner", HEAVY), ("pycore.ops", HEAVY)],
)
def test_module_loads_nothing_heavy(module: str, unwanted: set[str]) -> None:
    """Each command pays for what the client loads, each container's host for what the spawner does."""
    code = f"import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert unwanted & set(run.stdout.split()) == set()


def test_an_engine_loads_nothing_that_few_containers_need() -> None:
    """Each take-over waits for the supervisor's imports."""
    code = "import sys, pycore.engine, pycore.plugins; pycore.plugins.load_plugins(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"asyncio", "http.client", "pyroute2", "pyseccomp", "rich", "ssl"} & set(run.stdout.split()) == set()


def test_only_the_kernel_floor_touches_ctypes() -> None:
    users = [path for path in SOURCES if "ctypes" in _imported(path.read_text(encoding="utf-8"))]
    assert [path for path in users if not _allowed(path)] == []


def _allowed(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in SYSTEM_CALLS)


def _imported(source: str) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names
