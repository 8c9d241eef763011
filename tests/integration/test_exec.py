"""exec: one more program in a container that runs, with the container's limits and its own wishes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command
from support.person import until

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]


@pytest.fixture(autouse=True)
def container(pycore: Command) -> Iterator[None]:
    """One that sleeps."""
    pycore("run", "-d", "--name", "t", "--network", "none", "-e", "A=from the spec", "host", "sleep", "1000")
    yield
    pycore.run("rm", "-f", "t")


def status_of(pycore: Command, *words: str) -> dict[str, str]:
    """What /proc says of a program of an exec."""
    text = pycore("exec", *words, "t", "cat", "/proc/self/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_streams_and_exit_status_are_the_programs(pycore: Command) -> None:
    done = pycore.run("exec", "t", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.status, done.out, done.err) == (7, "out\n", "err\n")
    process = pycore.popen("exec", "-i", "t", "cat", stdin=subprocess.PIPE)
    assert process.communicate("piped", timeout=30) == ("piped", "")
    assert pycore("exec", "t", "cat") == ""  # without -i there is nothing to read
    assert pycore("exec", "t", "sh", "-c", "kill -9 $$", status=137) == ""


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("t", "nonesuch"), 127, "not found in the container"),
        (("t", "/etc/passwd"), 126, "cannot be executed"),
        (("-w", "/nonesuch", "t", "true"), 125, "working directory /nonesuch"),
        (("-u", "nonesuch", "t", "true"), 125, "no user 'nonesuch'"),
        (("-u", "a b", "t", "true"), 125, "isolation.user"),
        (("-w", "x", "t", "true"), 125, "must be an absolute path"),
        (("-e", "=x", "t", "true"), 125, "not KEY=VALUE"),
        (("--detach-keys", "nonsense", "t", "true"), 125, "is no key"),
        (("nonesuch", "true"), 125, "no such container"),
        (("t",), 125, "needs a command"),
    ],
)
def test_what_cannot_be_is_said(pycore: Command, command: tuple[str, ...], status: int, words: str) -> None:
    assert words in pycore.fails("exec", *command, status=status)


def test_a_container_must_run(pycore: Command) -> None:
    pycore("pause", "t")
    assert "is paused" in pycore.fails("exec", "t", "true", status=125)
    pycore("unpause", "t")
    pycore("kill", "t")
    pycore("wait", "t")
    assert "is not running" in pycore.fails("exec", "t", "true", status=125)
    pycore("rm", "t")
    pycore("create", "--name", "t", "--network", "none", "host", "sleep", "1000")
    assert "is not running" in pycore.fails("exec", "t", "true", status=125)


def test_environment_user_and_directory(pycore: Command) -> None:
    assert pycore("exec", "t", "sh", "-c", "echo $A; pwd; id -u") == "from the spec\n/\n0\n"
    words = ("exec", "-e", "A=other", "-e", "B", "-w", "/usr", "-u", "1234:77", "t")
    pycore.environment["B"] = "mine"
    assert pycore(*words, "sh", "-c", "echo $A $B; pwd; id -u; id -g") == "other mine\n/usr\n1234\n77\n"
    assert pycore("exec", "t", "sh", "-c", "echo $A$B") == "from the spec\n"  # the container itself is as before


def test_it_is_as_confined_as_the_containers_own_program(pycore: Command) -> None:
    (row,) = pycore.json("ps")
    own = dict(line.split(":\t", 1) for line in Path(f"/proc/{row['pid']}/status").read_text().splitlines())
    more = status_of(pycore)
    assert (more["Seccomp"], more["NoNewPrivs"]) == ("2", "1")
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert more[key] == own[key]
    assert int(status_of(pycore, "-u", "1234")["CapEff"], 16) == 0


def test_privileged_is_all_powers_and_no_filter(pycore: Command) -> None:
    more = status_of(pycore, "--privileged")
    mine = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert (more["Seccomp"], more["NoNewPrivs"]) == ("0", "0")
    assert more["CapEff"] == mine["CapEff"]


def test_a_program_in_the_background(pycore: Command) -> None:
    assert pycore("exec", "-d", "t", "sh", "-c", "echo x; echo done > /dev/shm/done; sleep 1000") == ""
    until(lambda: pycore.run("exec", "t", "cat", "/dev/shm/done").out == "done\n")
    pycore("exec", "-dt", "t", "sh", "-c", "seq 100000; tty > /dev/shm/tty; sleep 1000")
    until(lambda: pycore.run("exec", "t", "cat", "/dev/shm/tty").out == "/dev/pts/0\n")


def test_signals_are_passed_on(pycore: Command) -> None:
    process = pycore.popen("exec", "t", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 5
    process.communicate()


def test_without_a_terminal_it_outlives_its_client(pycore: Command) -> None:
    script = "echo ready; read x < /dev/shm/wait; echo over > /dev/shm/over"
    pycore("exec", "t", "mkfifo", "/dev/shm/wait")
    process = pycore.popen("exec", "t", "sh", "-c", script)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    pycore("exec", "t", "sh", "-c", "echo > /dev/shm/wait")
    until(lambda: pycore.run("exec", "t", "cat", "/dev/shm/over").out == "over\n")
    process.communicate()  # only now: the program has held the pipe


def test_the_containers_end_is_the_end_of_all(pycore: Command) -> None:
    process = pycore.popen("exec", "t", "sh", "-c", "echo ready; sleep 1000")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    pycore("kill", "t")
    assert process.wait(30) == 128 + signal.SIGKILL
    process.communicate()


def test_options_end_with_the_container(pycore: Command) -> None:
    assert pycore("exec", "t", "echo", "-u", "--help") == "-u --help\n"


def test_an_exec_is_told(pycore: Command) -> None:
    pycore("exec", "t", "true")
    lines = pycore("events", "--since", "1h", "--until", "0s", "--filter", "what=exec")
    assert "exec" in lines


def test_nothing_is_left_of_many(pycore: Command) -> None:
    pycore("exec", "t", "true")
    before = len(os.listdir(f"/proc/{pycore.supervisor()}/fd"))
    for _ in range(10):
        pycore("exec", "-t", "t", "true")
        pycore("exec", "t", "true")
        pycore.fails("exec", "t", "nonesuch", status=127)
    until(lambda: len(os.listdir(f"/proc/{pycore.supervisor()}/fd")) <= before)
