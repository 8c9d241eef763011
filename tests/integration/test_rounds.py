"""An app that comes and goes again and again, and at times fails to come, leaves nothing: not in the processes that
stay, and not on the host. The bench does a thousand rounds of it.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from bench import mixed
from bench.holdings import Holdings, held
from bench.image import make_root
from support.command import Command

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("libseccomp", "libnftables")]

EARLY, LAST = 5, 15
MEMORY = 20 << 20
"""Bytes by which processes may grow in between: two mebibytes for each round, since heaps still settle, beside other
tests more slowly. What is kept of less than that is found by the bench."""


def holdings(pycore: Command) -> Holdings:
    return held(pycore.run_dir, pycore.data_dir, mixed.NAME, mixed.CONTAINERS)


def grown(pycore: Command, before: Holdings) -> dict[str, int]:
    """What there is more of than before, once the supervisor has let go of the last client."""
    deadline = time.monotonic() + 20
    while (more := holdings(pycore).grown(before, MEMORY)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return more


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_rounds_leave_nothing(pycore: Command, tmp_path: Path) -> None:
    rootfs = make_root(tmp_path / "image", ("sh", "sleep"))
    port = free_port()
    works = pycore.write(mixed.spec(rootfs, port), "works.toml")
    fails = pycore.write(mixed.spec(rootfs, port, fails=True), "fails.toml")
    pycore.environment["PYCORE_LINGER"] = "60"
    early, supervisor = None, 0
    for number in range(1, LAST + 1):
        assert "/no/such/program" in pycore.fails("apply", fails, status=127)
        assert pycore.json("ps", "-a") == []
        pycore("apply", works)
        pycore.fails("apply", fails, status=127)
        assert {row["status"] for row in pycore.json("ps")} == {"running"}
        pycore("down", mixed.NAME)
        if number == EARLY:
            early, supervisor = holdings(pycore), pycore.supervisor()
    assert early
    assert grown(pycore, early) == {}
    assert pycore.supervisor() == supervisor, "all of it was done by one"
    assert (early.mounts, early.links, early.elements) == (0, 0, 0)
