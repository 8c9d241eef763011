"""A client's terminal shared with a container's: run -it, exec -it, attach; and what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command import Command
from support.person import Person, until

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SIT = Callable[..., Person]
PROMPT = "[$#] $"
RUN = ("run", "-it", "--name", "t", "--network", "none", "-e", "PS1=$ ", "host", "sh")


@pytest.fixture
def sit(pycore: Command) -> Iterator[SIT]:
    """Sit down at a terminal and give a command."""
    people: list[Person] = []

    def sit_down(*words: str, size: tuple[int, int] = (24, 80)) -> Person:
        people.append(Person(pycore, *words, size=size))
        return people[-1]

    yield sit_down
    for person in people:
        person.leave()


@pytest.fixture(autouse=True)
def ended(pycore: Command) -> Iterator[None]:
    """A shell does not end when it is asked to, and need not be waited for."""
    yield
    pycore.run("rm", "-f", "t")


def sit_with_a_trap(pycore: Command, sit: SIT) -> Person:
    """At a program in a container ``t`` that tells when it gets SIGHUP."""
    pycore("run", "-d", "--name", "t", "--network", "none", "host", "sleep", "1000")
    program = "trap 'echo hup > /dev/shm/hup; exit' HUP; echo ready; while :; do sleep 0.1; done"
    me = sit("exec", "-it", "t", "sh", "-c", program)
    me.sees("ready")
    return me


def until_hung_up(pycore: Command) -> None:
    """Until that program has got it."""
    until(lambda: pycore.run("exec", "t", "cat", "/dev/shm/hup").out == "hup\n")


def test_a_shell_in_a_container_is_like_a_shell(pycore: Command, sit: SIT) -> None:
    me = sit(*RUN, size=(33, 99))
    me.sees(PROMPT)
    assert me.is_raw
    me.type("tty; stty size; ls -l /dev/console\n")
    me.sees(r"/dev/pts/0\r\n33 99\r\ncrw.*136, 0 ")
    me.resize(44, 111)
    until(lambda: _size(pycore) == "44 111")
    me.type("sleep 100\n")
    me.sees("sleep 100\r\n")
    me.type("\x03")  # a byte to the container, where it is a signal to the sleep
    me.sees(PROMPT)
    me.type("exit 7\n")
    assert me.ends() == 7
    assert me.settings() == me.before
    assert "stty size" in pycore("logs", "t")


def _size(pycore: Command) -> str:
    return pycore("exec", "t", "sh", "-c", "stty size </dev/pts/0").strip()


def test_run_ends_with_the_program_and_removes_it(pycore: Command, sit: SIT) -> None:
    me = sit("run", "-it", "--rm", "--network", "none", "host", "sh", "-c", "echo all; seq 2000; exit 3")
    me.sees("all\r\n.*\n2000\r\n")
    assert me.ends() == 3
    assert pycore.json("ps", "-a") == []


def test_no_terminal_is_taken_from_a_pipe(pycore: Command) -> None:
    assert "not a terminal" in pycore.fails("run", "-it", "--network", "none", "host", "sh", status=125)
    assert pycore.json("ps", "-a") == []


def test_a_terminal_for_the_output_alone_needs_none_for_the_input(pycore: Command) -> None:
    assert pycore("run", "--rm", "-t", "--network", "none", "host", "sh", "-c", "tty; echo x") == "/dev/pts/0\nx\n"


def test_detach_and_attach(pycore: Command, sit: SIT) -> None:
    me = sit(*RUN)
    me.sees(PROMPT)
    me.type("echo a$((1 + 1))b\n")
    me.sees("a2b")
    me.type("\x10")
    me.type("\x11")
    assert me.ends() == 0
    assert me.settings() == me.before
    one, other = sit("attach", "t"), sit("attach", "--detach-keys", "ctrl-a", "t")
    until(lambda: one.is_raw and other.is_raw)
    one.type("echo c$((1 + 2))d\n")
    one.sees("c3d")
    other.sees("c3d")
    other.type("\x10\x11\x01")
    assert other.ends() == 0
    one.type("\x15exit 5\n")  # what the other had typed is still in the line
    assert one.ends() == 5


def test_run_in_the_background_with_a_terminal(pycore: Command, sit: SIT) -> None:
    pycore("run", "-dit", "--name", "t", "--network", "none", "-e", "PS1=$ ", "host", "sh")
    me = sit("attach", "t")
    until(lambda: me.is_raw)
    me.type("echo e$((1 + 3))f; exit 4\n")
    me.sees("e4f")
    assert me.ends() == 4


def test_who_only_looks_on_types_nothing(pycore: Command, sit: SIT) -> None:
    pycore("run", "-dit", "--name", "t", "--network", "none", "host", "sh", "-c", "read x; echo got $x; read y")
    me = sit("attach", "--no-stdin", "t")
    you = sit("attach", "t")
    until(lambda: you.is_raw)
    me.type("mine\n")
    you.type("yours\n")
    me.sees("got yours")
    assert not me.is_raw


def test_a_client_that_is_killed_leaves_the_terminal_as_it_was(pycore: Command, sit: SIT) -> None:
    me = sit(*RUN)
    me.sees(PROMPT)
    assert me.is_raw
    me.signal(signal.SIGKILL)
    me.process.wait()
    until(lambda: me.settings() == me.before)
    (row,) = pycore.json("ps")
    assert row["status"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_client_and_not_the_container(pycore: Command, sit: SIT, number: int) -> None:
    me = sit(*RUN)
    me.sees(PROMPT)
    me.signal(number)
    assert me.ends() == 128 + number
    assert me.settings() == me.before
    assert [row["status"] for row in pycore.json("ps")] == ["running"]


def test_a_supervisor_that_is_killed_costs_nothing_but_a_moment(pycore: Command, sit: SIT) -> None:
    """The client puts its terminal back, and goes on with the next supervisor, which has the container's terminal."""
    me = sit(*RUN)
    me.sees(PROMPT)
    me.type("echo before\n")
    me.sees("\nbefore\r\n")
    first = pycore.supervisor()
    os.kill(first, signal.SIGKILL)
    until(lambda: pycore.supervisor() not in (0, first) and me.is_raw)
    me.type("echo a$((1 + 4))z\n")
    me.sees("a5z")
    me.type("exit 6\n")
    assert me.ends() == 6
    assert me.settings() == me.before


def test_a_terminal_is_put_back_when_its_supervisor_is_killed(pycore: Command, sit: SIT) -> None:
    """An exec has nothing to go on with: it ends, and its program gets SIGHUP."""
    me = sit_with_a_trap(pycore, sit)
    assert me.is_raw
    os.kill(pycore.supervisor(), signal.SIGKILL)
    assert me.ends() == 125
    assert me.settings() == me.before
    until_hung_up(pycore)


def test_a_client_that_is_stopped_has_its_terminal_back_meanwhile(pycore: Command, sit: SIT) -> None:
    me = sit(*RUN)
    me.sees(PROMPT)
    me.signal(signal.SIGTSTP)
    until(lambda: _state(me.process.pid) == "T")
    assert me.settings() == me.before
    me.signal(signal.SIGCONT)
    until(lambda: me.is_raw)
    me.type("echo a$((1 + 5))z\n")
    me.sees("a6z")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_terminal_that_is_not_read_holds_nobody_up(pycore: Command, sit: SIT) -> None:
    me = sit("run", "-it", "--name", "t", "--network", "none", "host", "sh", "-c", "seq 500000; sleep 1000")
    until(lambda: pycore.run("logs", "--tail", "1", "t").out.strip() == "500000")
    me.sees("\n500000\r\n")


def test_exec_with_a_terminal(pycore: Command, sit: SIT) -> None:
    pycore("run", "-d", "--name", "t", "--network", "none", "host", "sleep", "1000")
    me = sit("exec", "-it", "-e", "PS1=$ ", "t", "sh", size=(12, 34))
    me.sees(PROMPT)
    me.type("tty; stty size\n")
    me.sees("/dev/pts/0\r\n12 34")
    me.type("exit 9\n")
    assert me.ends() == 9
    assert me.settings() == me.before


def test_an_exec_that_was_detached_from_runs_on(pycore: Command, sit: SIT) -> None:
    pycore("run", "-d", "--name", "t", "--network", "none", "host", "sleep", "1000")
    me = sit("exec", "-it", "t", "sh", "-c", "echo ready; read x; seq 100000; echo done > /dev/shm/done; sleep 1000")
    me.sees("ready")
    me.type("go\n\x10\x11")
    assert me.ends() == 0
    until(lambda: pycore.run("exec", "t", "cat", "/dev/shm/done").out == "done\n")


def test_exec_ends_with_its_program_whatever_that_has_left(pycore: Command, sit: SIT) -> None:
    pycore("run", "-d", "--name", "t", "--network", "none", "host", "sleep", "1000")
    me = sit("exec", "-it", "t", "sh", "-c", "(trap '' HUP; sleep 1000) & echo bye")
    me.sees("bye")
    assert me.ends() == 0


def test_the_program_of_a_client_that_is_killed_gets_sighup(pycore: Command, sit: SIT) -> None:
    me = sit_with_a_trap(pycore, sit)
    me.signal(signal.SIGKILL)
    until_hung_up(pycore)
    assert me.settings() == me.before


def test_the_user_of_the_program_owns_its_terminal(pycore: Command) -> None:
    run = ("run", "--rm", "-t", "-u", "1234:1234", "--network", "none", "host")
    assert pycore(*run, "sh", "-c", 'stat -c %u "$(tty)"; echo x > "$(tty)"') == "1234\nx\n"


def test_a_false_multiplexer_is_refused(pycore: Command) -> None:
    """What is at /dev/ptmx is the container's to say, so nothing of it is believed."""
    pycore("run", "-d", "--name", "t", "--network", "none", "host", "sleep", "1000")
    for trap in ("mkfifo /dev/ptmx", "ln -s null /dev/ptmx", "mknod /dev/ptmx c 5 0", "echo > /dev/ptmx"):
        pycore("exec", "t", "sh", "-c", f"rm /dev/ptmx; {trap}")
        assert "no terminal in the container" in pycore.fails("exec", "-t", "t", "true", status=125)


def test_descriptors_of_the_host_do_not_come_with_a_terminal(pycore: Command) -> None:
    out = pycore("run", "--rm", "-t", "--network", "none", "host", "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '")
    assert out.split() == ["0", "1", "2", "3"]  # the last is ls's own


def test_a_clients_own_terminal_is_not_given_away(pycore: Command, sit: SIT) -> None:
    """Without -t the program has the client's terminal itself, which stays the client's."""
    me = sit("run", "-i", "--rm", "-u", "1234", "--network", "none", "host", "sh", "-c", "echo x")
    me.sees("x")
    assert me.ends() == 0
    assert os.fstat(me.slave).st_uid == os.getuid()


def test_a_terminal_survives_a_kill_of_its_supervisor_with_nobody_attached(pycore: Command, sit: SIT) -> None:
    pycore("run", "-dit", "--name", "t", "--network", "none", "host", "sh", "-c", "read x; echo got $x; read y")
    os.kill(pycore.supervisor(), signal.SIGKILL)
    me = sit("attach", "t")
    until(lambda: me.is_raw)
    me.type("it\n")
    me.sees("got it")
    assert "got it" in pycore("logs", "t")


def test_a_client_with_no_terminal_at_all_may_attach(pycore: Command) -> None:
    pycore("run", "-dit", "--name", "t", "--network", "none", "host", "sh", "-c", "read x; echo got $x; exit 3")
    process = pycore.popen("attach", "t", stdin=subprocess.PIPE)
    out, err = process.communicate("this\n", timeout=30)
    assert (process.returncode, err) == (3, "")
    assert "got this" in out
