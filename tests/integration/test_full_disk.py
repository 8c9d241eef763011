"""A data dir without room: what cannot be kept is said, with its place, and what was there before goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest
from support.command import Command
from support.happenings import Happenings

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SPEC = """
name = "t"
[container.one]
image = "host"
command = ["sleep", "1000"]
stop_signal = "KILL"
network.driver = "none"
logging.driver = "none"
"""


@pytest.fixture
def small(pycore: Command) -> Iterator[Command]:
    """Where the data dir has few megabytes."""
    pycore.data_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", pycore.data_dir], check=True)
    yield pycore
    pycore.end()
    subprocess.run(["umount", pycore.data_dir], check=True)


def fill(pycore: Command) -> None:
    with contextlib.suppress(OSError), (pycore.data_dir / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(os.sysconf("SC_PAGE_SIZE")))


def clear(pycore: Command) -> None:
    (pycore.data_dir / "fill").unlink()


def test_an_apply_that_cannot_be_kept_is_taken_back(small: Command) -> None:
    small("apply", small.write(SPEC))
    (before,) = small.json("ps")
    fill(small)
    more = SPEC + SPEC.replace('name = "t"', "").replace(".one]", ".two]")
    error = small.fails("apply", small.write(more, "more.toml"))
    assert "No space left on device" in error
    assert str(small.data_dir) in error
    assert [row["pid"] for row in small.json("ps", "-a")] == [before["pid"]]
    clear(small)
    assert "two" in small("apply", small.write(more, "more.toml"))


def test_a_first_apply_or_run_that_cannot_be_kept_leaves_nothing(small: Command) -> None:
    small("run", "--rm", "--network", "none", "host", "true")  # what is compiled once is in its cache
    fill(small)
    assert "No space left on device" in small.fails("apply", small.write(SPEC))
    error = small.fails("run", "-d", "--network", "none", "--log-driver", "none", "host", "sleep", "1000", status=125)
    assert "No space left on device" in error
    assert small.json("ps", "-a") == []
    assert [*small.run_dir.glob("containers/*")] == []
    clear(small)
    small("apply", small.write(SPEC))


def test_a_log_without_room_is_told_of_and_its_container_runs_on(small: Command) -> None:
    with Happenings(small) as happenings:
        script = "yes | head -n 2000000; echo end > /dev/shm/end; exec sleep 1000"
        small("run", "-d", "--network", "none", "--name", "one", "host", "sh", "-c", script)
        assert "No space left" in happenings.word("log-lost")["reason"]
    done = small.run("logs", "one")
    assert done.status == 0
    assert "could not be kept" in done.err
    (row,) = small.json("ps")
    assert row["status"] == "running"
