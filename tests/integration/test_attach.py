"""attach without a terminal: streams apart, input where it is open, signals, and errors."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from support.command import Command
from support.person import until

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

RUN = ("run", "--name", "t", "--network", "none")


clients: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def ended(pycore: Command) -> Iterator[None]:
    yield
    pycore.run("rm", "-f", "t")
    while clients:
        client = clients.pop()
        client.kill()
        client.wait()
        for stream in (client.stdin, client.stdout, client.stderr):
            if stream:
                stream.close()


def attached(pycore: Command, *words: str) -> subprocess.Popen[str]:
    """An attach that has begun: what is typed comes back."""
    process = pycore.popen("attach", *words, "t", stdin=subprocess.PIPE)
    clients.append(process)
    assert process.stdin
    assert process.stdout
    process.stdin.write("first\n")
    process.stdin.flush()
    assert process.stdout.readline() == "first\n"
    return process


def test_streams_stay_apart_and_the_exit_status_is_passed_on(pycore: Command) -> None:
    script = 'read x; echo $x; read x; echo "out $x"; echo "err $x" >&2; exit 4'
    pycore(*RUN, "-di", "host", "sh", "-c", script)
    process = attached(pycore)
    out, err = process.communicate("more\n", timeout=30)
    assert (process.returncode, out, err) == (4, "out more\n", "err more\n")
    assert "out more" in pycore("logs", "t")


def test_the_end_of_the_input_is_the_clients_alone(pycore: Command) -> None:
    pycore(*RUN, "-di", "host", "cat")
    process = attached(pycore)
    assert process.stdin
    process.stdin.close()
    other = attached(pycore)
    assert process.stdout
    assert process.stdout.readline() == "first\n"  # what the other typed is shown to both
    assert other.poll() is None


def test_signals_go_to_the_container(pycore: Command) -> None:
    script = "trap 'exit 5' USR1; read x; echo $x; while :; do sleep 0.05; done"
    pycore(*RUN, "-di", "host", "sh", "-c", script)
    process = attached(pycore)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 5
    process.communicate()


def test_or_to_nobody_but_the_client(pycore: Command) -> None:
    pycore(*RUN, "-di", "host", "cat")
    process = attached(pycore, "--no-sig-proxy")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    process.communicate()
    assert [row["status"] for row in pycore.json("ps")] == ["running"]


def test_a_client_that_is_gone_is_let_go(pycore: Command) -> None:
    pycore(*RUN, "-di", "host", "cat")
    process = attached(pycore)
    process.kill()
    process.communicate()
    attached(pycore)


def test_a_client_that_does_not_read_holds_nobody_up(pycore: Command) -> None:
    pycore(*RUN, "-di", "host", "sh", "-c", "read x; echo $x; seq 1000000; echo over; read x; sleep 1000")
    process = attached(pycore)
    until(lambda: pycore("logs", "--tail", "1", "t") == "over\n")
    process.kill()
    process.communicate()


@pytest.mark.parametrize("flags", [("-a",), ("-i",), ("-ai",)])
def test_start_can_attach_from_the_beginning(pycore: Command, flags: tuple[str, ...]) -> None:
    pycore("create", *RUN[1:], "-i", "host", "sh", "-c", 'echo "out $1"; echo err >&2; cat; exit 7', "sh", "there")
    process = pycore.popen("start", *flags, "t", stdin=subprocess.PIPE)
    clients.append(process)
    if flags == ("-a",):  # our input is not the program's
        assert process.stdout
        assert process.stdout.readline() == "out there\n"
        pycore("kill", "t")
        assert process.wait(30) == 128 + signal.SIGKILL
        return
    out, err = process.communicate("typed\n", timeout=30)  # whose end is the program's, too
    assert (process.returncode, out, err) == (7, "out there\ntyped\n", "err\n")


def test_what_a_quick_program_writes_is_seen_by_who_starts_it(pycore: Command) -> None:
    pycore("create", *RUN[1:], "host", "sh", "-c", "seq 3; exit 2")
    for _ in range(3):  # the first time it was created, then it has stopped
        done = pycore.run("start", "-a", "t")
        assert (done.status, done.out) == (2, "1\n2\n3\n")


def test_an_input_that_has_ended_stays_so_when_the_supervisor_is_killed(pycore: Command) -> None:
    pycore("create", *RUN[1:], "-i", "host", "sh", "-c", "cat; echo over; while :; do sleep 0.05; done")
    process = pycore.popen("start", "-i", "t", stdin=subprocess.PIPE)
    clients.append(process)
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    assert process.stdout.readline() == "over\n"
    first = pycore.supervisor()
    os.kill(first, signal.SIGKILL)
    until(lambda: pycore.supervisor() not in (0, first))
    pycore("kill", "t")
    assert process.wait(30) == 128 + signal.SIGKILL


def test_start_attaches_to_one_alone(pycore: Command) -> None:
    pycore("create", *RUN[1:], "host", "true")
    assert "takes one container" in pycore.fails("start", "-i", "t", "t", status=2)


def test_who_cannot_be_attached_to(pycore: Command) -> None:
    assert "no such container" in pycore.fails("attach", "t")
    pycore(*RUN, "-d", "host", "sleep", "1000")
    pycore("pause", "t")
    assert "is paused" in pycore.fails("attach", "t")
    pycore("unpause", "t")
    pycore("kill", "t")
    pycore("wait", "t")
    assert "is not running" in pycore.fails("attach", "t")


def test_streams_that_went_to_another_client_are_not_pycores(pycore: Command) -> None:
    first = pycore.popen(*RUN, "host", "sh", "-c", "echo ready; sleep 1000")
    assert first.stdout
    assert first.stdout.readline() == "ready\n"
    assert "does not come to pycore" in pycore.fails("attach", "t")
    pycore("kill", "t")
    first.communicate()


def test_attach_survives_a_kill_of_the_supervisor(pycore: Command) -> None:
    pycore(*RUN, "-di", "host", "sh", "-c", "read x; echo $x; read x; echo $x; exit 3")
    process = attached(pycore)
    first = pycore.supervisor()
    os.kill(first, signal.SIGKILL)
    until(lambda: pycore.supervisor() not in (0, first))
    out, err = process.communicate("second\n", timeout=30)
    assert process.returncode == 3, (out, err)
