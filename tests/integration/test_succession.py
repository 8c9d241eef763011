"""One supervisor after another: a newer version, systemd's, or the next one after a kill. Nobody waits in vain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command, wait_readable
from support.versions import command_of, copy_of

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

COUNT = "i=0; while [ ! -e /go ]; do i=$((i+1)); echo $i; sleep 0.005; done; exit 7"
"""Writes numbers until somebody makes /go."""


@pytest.fixture(scope="module")
def newer_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(tmp_path_factory.mktemp("newer"), "999.0")


@pytest.fixture
def newer(newer_tree: Path, pycore: Command) -> Iterator[Command]:
    command = command_of(newer_tree, pycore)
    yield command
    command.end()


def start(pycore: Command, name: str, script: str = "exec sleep 1000") -> int:
    pycore("run", "-d", "--name", name, "--network", "none", "host", "sh", "-c", script)
    return pid_of(pycore, name)


def pid_of(pycore: Command, name: str) -> int:
    (row,) = [row for row in pycore.json("ps") if row["container"] == f"{name}/{name}"]
    return row["pid"]


def attached(pycore: Command, script: str) -> tuple[subprocess.Popen[str], int]:
    """A ``run`` in the foreground that has started its program; the program's process id."""
    process = pycore.popen(
        "run", "--rm", "--name", "fg", "--network", "none", "host", "sh", "-c", f"echo ready; {script}"
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process, pid_of(pycore, "fg")


def end_of(pid: int, number: int) -> None:
    handle = os.pidfd_open(pid)
    os.kill(pid, number)
    assert wait_readable(handle, 20)
    os.close(handle)


def test_a_newer_version_takes_over_while_containers_run(pycore: Command, newer: Command) -> None:
    pid = start(pycore, "counter", COUNT)
    client, _ = attached(pycore, "while [ ! -e /go ]; do sleep 0.02; done; exit 9")
    waiting = pycore.popen("wait", "counter")
    old = pycore.supervisor()
    assert newer("--version") == "pycore 999.0\n"
    assert pid_of(newer, "counter") == pid
    assert newer.supervisor() not in (0, old)
    told = pycore.fails("ps")
    assert "pycore 999.0 looks after" in told
    assert "use pycore 999.0" in told

    Path(f"/proc/{pid_of(newer, 'fg')}/root/go").touch()
    client.communicate(timeout=30)
    assert client.returncode == 9, "who runs a container in the foreground hears of its end from the next supervisor"
    Path(f"/proc/{pid}/root/go").touch()
    assert newer("wait", "counter") == "7\n"
    out, _ = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (0, "7\n"), "so does who waits for one"
    numbers = [int(line) for line in newer("logs", "counter").split()]
    assert numbers == list(range(1, len(numbers) + 1)), "nothing of the output is lost or doubled"
    newer("down", "counter")


TASK = """name = "t"
[container.task]
image = "host"
command = ["sh", "-c", "until [ -e /go ]; do sleep 0.02; done"]
goal = "exit-0"
stop_signal = "KILL"
[container.task.network]
driver = "none"
"""


def applying(pycore: Command) -> tuple[subprocess.Popen[str], int]:
    """An apply that waits for its task; the task's process id."""
    events = pycore.popen("events", "--since", "1h", "--filter", "what=start", "--filter", "container=t/task")
    process = pycore.popen("apply", pycore.write(TASK))
    assert events.stdout
    assert "start t/task" in events.stdout.readline()
    events.send_signal(signal.SIGINT)
    events.communicate(timeout=20)
    (row,) = pycore.json("ps")
    return process, row["pid"]


def test_what_was_begun_is_finished_before_a_supervisor_makes_way(pycore: Command, newer: Command) -> None:
    apply, pid = applying(pycore)
    successor = newer.popen("ps", "-a", "-q")
    Path(f"/proc/{pid}/root/go").touch()
    out, err = apply.communicate(timeout=30)
    assert (apply.returncode, err) == (0, "")
    assert "t/task completed" in out
    assert successor.communicate(timeout=30)[0] == "t/task\n"


def test_a_supervisor_that_does_not_come_to_its_end_is_killed(pycore: Command, newer: Command) -> None:
    apply, pid = applying(pycore)
    newer.environment["PYCORE_PATIENCE"] = "0.1"
    done = newer.run("ps", "-q")
    assert done.out == "t/task\n"
    assert "does not end: it is killed" in done.err
    _, err = apply.communicate(timeout=30)
    assert apply.returncode == 1
    assert "the supervisor ended before it answered" in err
    assert Path(f"/proc/{pid}").exists()


def test_a_run_in_the_foreground_survives_a_killed_supervisor(pycore: Command) -> None:
    client, pid = attached(pycore, "trap 'exit 4' USR1; while :; do sleep 0.02; done")
    end_of(pycore.supervisor(), signal.SIGKILL)
    pycore("ps")
    client.send_signal(signal.SIGUSR1)
    client.communicate(timeout=30)
    assert client.returncode == 4, "a signal reaches the program by way of the next supervisor"
    assert not Path(f"/proc/{pid}").exists()
    assert pycore.json("ps", "-a") == [], "--rm is not forgotten"


def test_an_end_while_no_supervisor_is_there_is_heard_of(pycore: Command) -> None:
    client, pid = attached(pycore, "while [ ! -e /go ]; do sleep 0.02; done; exit 6")
    client.send_signal(signal.SIGSTOP)
    end_of(pycore.supervisor(), signal.SIGKILL)
    handle = os.pidfd_open(pid)
    Path(f"/proc/{pid}/root/go").touch()
    assert wait_readable(handle, 20)
    os.close(handle)
    assert pycore.json("ps") == []
    client.send_signal(signal.SIGCONT)
    client.communicate(timeout=30)
    assert client.returncode == 6


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemds_supervisor_takes_the_place_of_another_and_tells_how_it_fares(
    pycore: Command, tmp_path: Path, kind: str
) -> None:
    pid = start(pycore, "stays")
    old = pycore.supervisor()
    place = str(tmp_path / "notify") if kind == "path" else f"@pycore-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(place.replace("@", "\0"))
        listener.settimeout(30)
        pycore.environment["NOTIFY_SOCKET"] = place
        service = pycore.popen("supervise")
        assert listener.recv(4096).decode().split("\n") == ["READY=1", "STATUS=looks after 1 container"]
        del pycore.environment["NOTIFY_SOCKET"]
        assert pycore.supervisor() == service.pid != old
        assert pid_of(pycore, "stays") == pid
        pycore("rm", "-f", "stays")
        while (told := listener.recv(4096).decode()) != "STATUS=looks after 0 containers":
            assert told.startswith("STATUS=")
        service.send_signal(signal.SIGTERM)
        assert listener.recv(4096) == b"STOPPING=1"
        out, err = service.communicate(timeout=30)
    assert (service.returncode, out, err) == (0, "", "")


def test_an_older_one_for_systemd_does_not_push_a_newer_one_out(pycore: Command, newer: Command) -> None:
    start(newer, "stays")
    assert "a newer pycore looks after" in pycore.fails("supervise")
    newer("ps")


def test_who_follows_a_log_misses_nothing_when_the_supervisor_is_killed(pycore: Command) -> None:
    pid = start(pycore, "counter", COUNT)
    follower = pycore.popen("logs", "-f", "counter")
    assert follower.stdout
    assert follower.stderr
    lines = [follower.stdout.readline() for _ in range(20)]
    end_of(pycore.supervisor(), signal.SIGKILL)
    lines += [follower.stdout.readline() for _ in range(20)]
    Path(f"/proc/{pid}/root/go").touch()
    lines += follower.stdout.readlines()
    assert (follower.wait(30), follower.stderr.read()) == (0, "")
    follower.stdout.close()
    follower.stderr.close()
    numbers = [int(line) for line in lines]
    assert list(dict.fromkeys(numbers)) == list(range(1, max(numbers) + 1))
