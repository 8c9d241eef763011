"""A container held still and let go, what it uses, and the reason of its end in words; on the real kernel."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import pytest
from support.command import Command, wait_readable

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

COUNTING = """
    import os, time
    os.fork(), os.fork()
    while True:
        with open(f"/data/{os.getpid()}", "a") as file:
            file.write("x")
        time.sleep(0.002)
"""

FORKING = """
    import os, time
    while True:
        if os.fork() == 0:
            with open("/data/x", "a") as file:
                file.write("x")
            os._exit(0)
        os.wait()
"""


def start(pycore: Command, script: str, *more: str) -> str:
    """A container whose processes write to a directory of the host; that directory."""
    data = pycore.directory / "data-of-it"
    data.mkdir()
    file = pycore.directory / "script.py"
    file.write_text(textwrap.dedent(script))
    text = f"""
        name = "shop"
        [container.web]
        image = "host"
        command = ["python3", "/script.py"]
        stop_signal = "SIGKILL"
        network.driver = "none"
        storage.volumes = ["{data}:/data", "{file}:/script.py:ro"]
        """
    pycore("apply", pycore.write(textwrap.dedent(text) + "\n".join(more)))
    return str(data)


def written(data: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(data))


def grows(data: str) -> bool:
    """Whether something is written within a moment; a process that is frozen never does."""
    before = written(data)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if written(data) > before:
            return True
        time.sleep(0.01)
    return False


def still(data: str) -> bool:
    before = written(data)
    time.sleep(0.1)
    return written(data) == before


def status(pycore: Command) -> str:
    (row,) = (line for line in pycore("ps", "-a").splitlines() if line.startswith("shop/web"))
    return row


@pytest.mark.parametrize("script", [COUNTING, FORKING], ids=["several", "forking"])
def test_paused_and_let_go(pycore: Command, script: str) -> None:
    data = start(pycore, script)
    assert grows(data)
    for _ in range(3):
        pycore("pause", "shop/web")
        assert still(data)
        assert "paused" in status(pycore)
        assert pycore.json("doctor")["findings"] == []
        pycore("unpause", "shop/web")
        assert grows(data)
        assert "paused" not in status(pycore)


def test_what_is_paused_can_be_stopped_and_taken_down(pycore: Command) -> None:
    data = start(pycore, COUNTING)
    pycore("pause", "shop/web")
    pycore("stop", "shop/web")
    assert "paused" not in status(pycore)
    pycore("start", "shop/web")
    assert grows(data)
    pycore("pause", "shop/web")
    pycore("down", "shop")


def test_paused_twice_and_let_go_twice(pycore: Command) -> None:
    start(pycore, COUNTING)
    assert "is not paused" in pycore.fails("unpause", "shop/web")
    pycore("pause", "shop/web")
    assert "is paused already" in pycore.fails("pause", "shop/web")


def test_a_pause_outlives_the_supervisor(pycore: Command) -> None:
    data = start(pycore, COUNTING)
    pycore("pause", "shop/web")
    pid = pycore.supervisor()
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert wait_readable(pidfd, 20)
    os.close(pidfd)
    assert "paused" in status(pycore)
    assert still(data)
    pycore("unpause", "shop/web")
    assert grows(data)


def test_what_somebody_thawed_is_frozen_again_by_a_repair(pycore: Command) -> None:
    data = start(pycore, COUNTING)
    pycore("pause", "shop/web")
    thaw(pycore)
    assert grows(data)
    assert pycore.json("doctor", "--repair")["findings"]
    assert still(data)


def thaw(pycore: Command) -> None:
    record = pycore.json("inspect", "shop/web")
    for root in Path("/sys/fs/cgroup").glob("**/" + record["id"]):
        if (root / "freezer.state").exists():
            (root / "freezer.state").write_text("THAWED")
        elif (root / "cgroup.freeze").exists():
            (root / "cgroup.freeze").write_text("0")


def test_what_it_uses(pycore: Command) -> None:
    start(pycore, "x = bytearray(30 << 20)\nwhile True: pass", 'resources = { memory = "64M", pids = 9 }')
    deadline = time.monotonic() + 20
    while True:
        (row,) = pycore.json("stats", "--no-stream")
        if row["cpu_seconds_total"] > 0.1 and row["memory_bytes"] > 30 << 20:
            break
        assert time.monotonic() < deadline, row
    assert row["memory_bytes"] < 64 << 20
    assert row["memory_limit_bytes"] == 64 << 20
    assert row["pids"] == 1


def test_an_end_for_want_of_memory_is_told_in_words(pycore: Command) -> None:
    start(pycore, "x = b'x' * (200 << 20)", 'resources = { memory = "32M", swap = "0" }')
    pycore.run("wait", "shop/web")
    assert "memory limit 32M reached" in status(pycore)
    pycore("start", "shop/web")
    pycore.run("wait", "shop/web")
    assert "memory limit 32M reached" in status(pycore)


def test_an_end_for_want_of_processes_is_told_in_words(pycore: Command) -> None:
    start(pycore, "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(100)", "resources.pids = 5")
    pycore.run("wait", "shop/web")
    assert "the limit of 5 processes was reached" in status(pycore)
