"""A container's process finds all code of its own loaded: what it had to import, each container would import anew."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.hookspecs import Host, hookimpl
from pycore.ops import Operation
from pycore.plugins import load_plugins
from pycore.spec import Container

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SPEC = """
name = "inside"

[container.one]
image = "host"
command = ["true"]

[container.one.network]
driver = "none"
"""

COUNTING = """
import os, sys
from dataclasses import dataclass
from pycore.ops import Operation
from pycore.steps import Step

before = set()

@dataclass(frozen=True)
class Before(Operation):
    step = Step.JOIN

    def do(self, ctx):
        before.update(sys.modules)

    def explain(self):
        return "note what is imported"

@dataclass(frozen=True)
class After(Operation):
    step = Step.FILTER

    def do(self, ctx):
        os.write(1, f"imported: {sorted(set(sys.modules) - before)}".encode())

    def explain(self):
        return "say what was imported since"
"""


def test_a_containers_process_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counting_operations.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    operations = importlib.import_module("counting_operations")

    class Counting:
        @hookimpl
        def pycore_enter(self, container: Container, host: Host) -> list[Operation]:
            return [operations.Before()]

        @hookimpl
        def pycore_confine(self, container: Container, host: Host) -> list[Operation]:
            return [operations.After()]

    with Engine(tmp_path / "run", tmp_path / "data", plugins=load_plugins({"a.counting": Counting()})) as engine:
        engine.apply(engine.load_text(SPEC))
        engine.wait("one")
        output = b"".join(chunk.data for chunk in engine.logs("one")).decode()
        engine.down("inside")
    assert output == "imported: []"
