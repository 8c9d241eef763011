"""Descriptors of a command end with it: no process that stays may hold the pipes of its caller open."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.hookspecs import Host, hookimpl
from pycore.ops import Operation
from pycore.plugins import load_plugins
from pycore.spec import Container
from support.command import Command, wait_readable

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SPEC = """
name = "stay"

[container.one]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"

[container.one.network]
driver = "none"
"""


def test_who_reads_a_command_sees_its_end_while_the_container_runs(pycore: Command) -> None:
    """The first command starts supervisor, spawner and container: each of them could hold on."""
    mine, theirs = os.pipe()
    try:
        process = pycore.popen("apply", pycore.write(SPEC), stdout=theirs, stderr=subprocess.STDOUT, pass_fds=[theirs])
        os.close(theirs)
        assert process.wait(60) == 0
        said = b""
        while wait_readable(mine, 5):
            data = os.read(mine, 4096)
            if not data:
                break
            said += data
        else:
            pytest.fail("something still holds the pipe")
    finally:
        os.close(mine)
    assert b"stay/one created" in said
    assert [row["status"] for row in pycore.json("ps")] == ["running"]


LEAKY = """
import os
from dataclasses import dataclass
from pycore.ops import Operation
from pycore.steps import Step

@dataclass(frozen=True)
class Leak(Operation):
    step = Step.IDENTITY

    def do(self, ctx):
        os.dup2(os.open("/", os.O_RDONLY), 77, inheritable=True)

    def explain(self):
        return "leave a directory of the host open"
"""


def test_what_an_operation_leaves_open_does_not_reach_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor of the host in the program's hands was CVE-2024-21626."""
    (tmp_path / "leaky_operations.py").write_text(LEAKY)
    monkeypatch.syspath_prepend(tmp_path)
    leak = importlib.import_module("leaky_operations").Leak()

    class Leaky:
        @hookimpl
        def pycore_enter(self, container: Container, host: Host) -> list[Operation]:
            return [leak]

    command = json.dumps(["sh", "-c", "ls -l /proc/self/fd"])
    spec = SPEC.replace('["sleep", "1000"]', command)
    with Engine(tmp_path / "run", tmp_path / "data", plugins=load_plugins({"leaky": Leaky()})) as engine:
        engine.apply(engine.load_text(spec))
        engine.wait("one")
        output = b"".join(chunk.data for chunk in engine.logs("one")).decode()
        engine.down("stay")
    assert " 2 -> " in output
    assert " 77 -> " not in output
