"""Programs that serve one container: begun, found again by whoever comes next, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.linux import helper
from pycore.linux.pidfd import start_time

PYTHON = [sys.executable, "-I", "-S", "-c"]
SERVE = "import os, signal, sys\nopen(sys.argv[1], 'w').write(str(os.getpid()))\nsignal.pause()"
FAIL = "import sys\nsys.exit('12.5: no such tunnel\\nsyslog is not there')"


@pytest.fixture
def record(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "record")
    yield path
    helper.end(path)
    assert list(tmp_path.iterdir()) == []


def start(record: str, script: str = SERVE) -> int:
    """Start a program; its number."""
    helper.start([*PYTHON, script, helper.READY], record, os.getpid())
    return int(Path(record).read_text().split()[0])


def descriptors(pid: int) -> set[int]:
    """What a process has open, but for the pipe by which it has said that it is ready: that may be closed just now."""
    found: set[int] = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if ".ready" not in os.readlink(f"/proc/{pid}/fd/{fd}"):
                found.add(int(fd))
    return found


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def test_it_runs_with_the_network_that_it_serves_and_nothing_else(record: str) -> None:
    pid = start(record)
    assert helper.is_alive(record)
    assert os.readlink(f"/proc/{pid}/fd/0") == os.readlink("/proc/self/ns/net")
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2)} == {f"{record}.log"}
    begun_with = {fd for fd in range(3, 1024) if is_inheritable(fd)}  # by whoever has begun us
    assert descriptors(pid) <= {0, 1, 2} | begun_with
    assert os.getsid(pid) == pid
    helper.end(record)
    assert not helper.is_alive(record)
    assert start_time(pid) == 0


def test_what_fails_says_why_and_leaves_nothing(record: str) -> None:
    with pytest.raises(OSError, match="no such tunnel"):
        helper.start([*PYTHON, FAIL, helper.READY], record, os.getpid())
    assert os.listdir(os.path.dirname(record)) == []


def test_one_that_is_started_again_is_there_once(record: str) -> None:
    first = start(record)
    second = start(record)
    assert first != second
    assert start_time(first) == 0
    assert helper.is_alive(record)


def test_one_that_has_died_is_not_alive(record: str) -> None:
    pid = start(record)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not helper.is_alive(record)


def test_another_process_of_that_number_is_left_alone(record: str) -> None:
    with subprocess.Popen([*PYTHON, "input()"], stdin=subprocess.PIPE) as other:
        Path(record).write_text(f"{other.pid} {start_time(other.pid) + 1}")
        assert not helper.is_alive(record)
        helper.end(record)
        assert other.poll() is None
        other.communicate(b"\n")
        assert other.returncode == 0


def test_one_that_nobody_could_write_down_is_found_by_its_command_line(record: str) -> None:
    pid = start(record)
    os.unlink(record)
    os.mkfifo(f"{record}.ready")
    assert not helper.is_alive(record)
    helper.end(record)
    assert start_time(pid) == 0


@pytest.mark.parametrize("text", ["", "x y", "1", "999999999 1"])
def test_a_record_of_nobody(record: str, text: str) -> None:
    Path(record).write_text(text)
    assert not helper.is_alive(record)
