"""What a pidfd tells, and which process it means."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pycore.linux import pidfd

QUIET = [sys.executable, "-I", "-S", "-c"]


def test_how_a_child_has_ended_is_told_and_it_is_reaped() -> None:
    for script, status in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)):
        pid = os.posix_spawn(sys.executable, [*QUIET, script], {})
        fd = os.pidfd_open(pid)
        assert pidfd.exit_status(fd) == status
        assert pidfd.pid_of(fd) <= 0
        os.close(fd)
        assert pidfd.start_time(pid) == 0


PARENT = """
import os, sys
read, write = os.pipe()
pid = os.fork()
if not pid:
    os.read(read, 1)
    os._exit(5)
print(pid, flush=True)
os.read(0, 1)
os.write(write, b"x")
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print("ended", flush=True)
os.read(0, 1)
os.waitpid(pid, 0)
print("reaped", flush=True)
"""


def test_how_anothers_child_has_ended_is_told_when_that_one_has_waited() -> None:
    parent = subprocess.Popen([*QUIET, PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert parent.stdin
    assert parent.stdout
    fd = os.pidfd_open(int(parent.stdout.readline()))
    assert pidfd.pid_of(fd) > 0
    parent.stdin.write(b"x")
    assert parent.stdout.readline() == b"ended\n"
    assert pidfd.exit_status(fd) in (pidfd.Unreaped.YET, None), "None before Linux 6.13"
    parent.stdin.write(b"x")
    assert parent.stdout.readline() == b"reaped\n"
    assert pidfd.exit_status(fd) in (5, None), "None before Linux 6.15"
    os.close(fd)
    parent.communicate()


def test_the_start_time_is_found_whatever_the_process_is_called() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b') S 1 ((2)'); print('named', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "named\n"
    assert ") S 1 ((2)" in Path(f"/proc/{process.pid}/stat").read_text()
    started = pidfd.start_time(process.pid) / os.sysconf("SC_CLK_TCK")
    assert 0 < started <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert pidfd.start_time(process.pid) >= pidfd.start_time(os.getpid())
    process.communicate("\n")
    assert pidfd.start_time(process.pid) == 0
