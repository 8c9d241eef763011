"""Descriptors of a command end with it: no process that stays may hold the pipes of its caller open."""

from __future__ import annotations

import os
import subprocess

import pytest
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
