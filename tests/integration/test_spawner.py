"""Whoever dies, containers run on, and how they ended is learned: spawners and launchers on the real kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pycore.errors import ProgramNotFound, StartError
from pycore.launch import protocol
from pycore.launch.launcher import Stdio
from pycore.linux import libc
from pycore.linux.pidfd import exit_status
from support.command import wait_readable
from support.launching import PATIENCE, Launching, Victim, kill, known, pidfd_open

pytestmark = pytest.mark.root

WAIT = ("sh", "-c", 'read line < "$0"; exit 7')
"""A program that ends with status 7 once somebody writes to the FIFO that is its argument."""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Launching]:
    launching = Launching(tmp_path / "run")
    yield launching
    launching.end()


@pytest.fixture
def bell(tmp_path: Path) -> Path:
    """A FIFO that containers wait at: whatever is written to it ends one of them with status 7."""
    path = tmp_path / "bell"
    os.mkfifo(path)
    return path


def ring(bell: Path) -> None:
    bell.write_text("\n")


def victim(yard: Launching, script: str) -> Victim:
    return Victim(yard.run_dir, script)


# -- one spawner ---------------------------------------------------------------------------------------------


def test_an_end_is_written_down_and_told_once(yard: Launching) -> None:
    yard.start("a", "sh", "-c", "exit 3")
    yard.start("b", "sh", "-c", "kill -9 $$", kinds=("mount",))
    assert (yard.ended("a"), yard.ended("b")) == (3, -9)
    assert (yard.written("a"), yard.written("b")) == (3, -9)
    assert sorted(yard.told) == ["a", "b"]


def test_a_program_that_is_not_there_is_an_error_of_the_start(yard: Launching) -> None:
    starting = yard.launch("a", "nonesuch")
    starting.entered()
    with pytest.raises(ProgramNotFound):
        starting.go()
    assert yard.ended("a") == 127


def test_a_process_that_is_killed_while_it_waits_cannot_go_on(yard: Launching) -> None:
    starting = yard.launch("a", "true")
    starting.entered()
    signal.pidfd_send_signal(starting.pidfd, signal.SIGKILL)
    assert yard.ended("a") == -9
    with pytest.raises(StartError, match="ended before it became the program"):
        starting.go()


def test_one_that_has_ended_before_it_was_inside_says_so(yard: Launching) -> None:
    starting = yard.launch("a", "true", working_dir="/dev/null")
    with pytest.raises(StartError, match="working directory /dev/null"):
        starting.entered()
    assert starting.abandon()
    assert yard.ended("a") == 125


def test_the_program_is_given_nothing_of_the_spawners(yard: Launching) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    null = yard.stdio().stdin
    script = 'ulimit -n; grep -E "Sig(Ign|Blk)" /proc/self/status; umask'
    yard.start("a", "sh", "-c", script, stdio=Stdio(null, write, write))
    os.close(write)
    with open(read) as file:
        limit, blocked, ignored, umask = file.read().splitlines()
    import resource

    assert limit == str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    assert (blocked.split()[1], ignored.split()[1]) == ("0" * 16, "0" * 16)
    assert umask == "0022"


def test_a_waiting_process_holds_nothing_of_other_containers(yard: Launching) -> None:
    """It may wait for days; another's log pipe, or the spawner's own ends, would never be seen to close."""
    read, write = os.pipe2(os.O_CLOEXEC)
    first = yard.start("a", "sleep", "1000", stdio=Stdio(*[yard.stdio().stdin] * 3, {"stdin": write}))
    assert sorted(os.listdir(f"/proc/{first.pid}/fd")) == ["0", "1", "2"]
    waiting = yard.launch("b", "true", hold=True)
    waiting.entered()
    assert len(os.listdir(f"/proc/{waiting.pid}/fd")) == 4, "its streams and its channel"
    os.close(write)
    yard.launcher.release("a", "stdin")
    assert wait_readable(read, PATIENCE), "the last who could write has let go"
    assert os.read(read, 1) == b""
    os.close(read)
    waiting.abandon()


# -- the launcher dies ---------------------------------------------------------------------------------------


def test_a_killed_launcher_loses_no_container_no_end_and_no_output(yard: Launching, bell: Path) -> None:
    script = f"""
import os
from pycore.launch.launcher import Stdio
read, write = os.pipe2(os.O_CLOEXEC)
null = yard.stdio().stdin
for name in "ab":
    yard.start(name, "sh", "-c", "echo of {{0}}; read line < {bell}.{{0}}; exit 7".format(name),
               stdio=Stdio(null, write, write, {{"stdout": read}}))
tell(yard.spawners())
"""
    bells = [bell.with_name(f"bell.{name}") for name in "ab"]
    for each in bells:
        os.mkfifo(each)
    first = victim(yard, script)
    (before,) = first.heard()
    first.kill()
    ring(bells[0])
    found = yard.adopt()
    assert set(found) == {"a", "b"}
    assert yard.spawners() == before, "the spawner that is there serves"
    with open(found["a"].kept["stdout"], "rb", buffering=0) as pipe:
        assert sorted(pipe.read(100).splitlines()) == [b"of a", b"of b"]
    os.close(found["b"].kept["stdout"])
    ring(bells[1])
    ends = {name: each.status if each.pid == 0 else yard.ended(name) for name, each in found.items()}
    assert ends == {"a": 7, "b": 7}
    assert (yard.written("a"), yard.written("b")) == (7, 7)
    yard.start("c", "true")
    assert yard.ended("c") == 0


def test_an_end_that_nobody_was_there_for_is_handed_over(yard: Launching, bell: Path) -> None:
    first = victim(yard, f'tell(yard.start("a", *{WAIT!r}, {str(bell)!r}).pid)')
    (pid,) = first.heard()
    pidfd = os.pidfd_open(pid)
    first.kill()
    ring(bell)
    assert wait_readable(pidfd, PATIENCE)
    os.close(pidfd)
    found = yard.adopt([("a", pid, 1)])["a"]
    if found.pid:  # the spawner was not that quick
        assert yard.ended("a") == 7
    else:
        assert found.status == 7
        assert found.ended > 0
    assert yard.written("a") == 7


def test_a_created_container_outlives_the_launcher_and_is_started_by_the_next(yard: Launching) -> None:
    script = """
held = yard.launch("held", "sh", "-c", "exit 5", hold=True)
held.entered()
yard.start("runs", "sleep", "1000", hold=True)
free = yard.launch("free", "sleep", "1000")
free.entered()
tell(held.pid, free.pid)
"""
    first = victim(yard, script)
    held_pid, free_pid = first.heard()
    pidfd = os.pidfd_open(free_pid)
    first.kill()
    assert wait_readable(pidfd, PATIENCE), "nobody can let it go on: it ends"
    os.close(pidfd)
    found = yard.adopt()
    assert found["runs"].starting is None, "its program runs"
    held = found["held"]
    assert held.pid == held_pid
    assert held.starting
    held.starting.entered()
    held.starting.go()
    assert yard.ended("held") == 5


def test_a_created_container_that_fails_says_why_to_the_next_launcher(yard: Launching) -> None:
    first = victim(yard, 'yard.launch("a", "nonesuch", hold=True).entered(); tell()')
    first.heard()
    first.kill()
    starting = yard.adopt()["a"].starting
    assert starting
    with pytest.raises(ProgramNotFound):
        starting.go()


def test_what_was_executed_for_a_launcher_that_is_gone_concerns_nobody(yard: Launching) -> None:
    """Its terminal hangs up, and its id is free for others."""
    script = """
first = yard.start("a", "sleep", "1000")
more = yard.execute(first, "a.1", "sleep", "1000", terminal=True)
tell(more.pid)
"""
    first = victim(yard, script)
    (pid,) = first.heard()
    pidfd = os.pidfd_open(pid)
    first.kill()
    found = yard.adopt()
    assert list(found) == ["a"]
    assert wait_readable(pidfd, PATIENCE), "SIGHUP"
    os.close(pidfd)
    assert yard.output(found["a"], "a.1", "echo", "here") == "here\n"
    assert yard.told == ["a.1"]


# -- the spawner dies ----------------------------------------------------------------------------------------


def test_a_killed_spawner_costs_no_container_no_end_and_no_start(yard: Launching, bell: Path) -> None:
    first = yard.start("a", *WAIT, str(bell))
    second = yard.start("b", "sleep", "1000")
    waiting = yard.launch("c", "sh", "-c", "exit 4")
    waiting.entered()
    (old,) = yard.spawners()
    kill(old)
    yard.start("d", "sh", "-c", "exit 9")
    assert yard.ended("d") == 9
    assert [pid for pid in yard.spawners() if pid != old], "there is a new one"
    waiting.go()
    assert yard.ended("c") == 4
    ring(bell)
    assert yard.ended("a") == 7
    yard.launcher.kill("b", second.pidfd, signal.SIGKILL)
    assert yard.ended("b") == -9
    assert [yard.written(name) for name in "abcd"] == [7, -9, 4, 9]
    assert sorted(yard.told) == list("abcd")
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PIDFD, first.pidfd, os.WEXITED | os.WNOHANG)


def test_one_more_process_is_looked_after_too_when_its_spawner_dies(yard: Launching, bell: Path) -> None:
    first = yard.start("a", "sleep", "1000")
    more = yard.execute(first, "a.1", *WAIT, str(bell))
    yard.kill_spawners()
    ring(bell)
    assert yard.ended("a.1") == 7
    assert not (yard.run_dir / "containers" / "a.1").exists(), "an end of which no record is kept"
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PIDFD, more.pidfd, os.WEXITED | os.WNOHANG)
    assert yard.output(first, "a.2", "echo", "again") == "again\n"


def test_a_process_that_was_being_cloned_when_the_spawner_died_is_cloned_by_the_next(yard: Launching) -> None:
    """The spawner is stopped, so that it has the request and no answer."""
    yard.start("a", "true")
    (old,) = yard.spawners()
    os.kill(old, signal.SIGSTOP)
    done = threading.Event()

    def start() -> None:
        yard.start("b", "sh", "-c", "exit 6")
        done.set()

    thread = threading.Thread(target=start)
    thread.start()
    kill(old)
    thread.join(PATIENCE)
    assert done.is_set()
    assert yard.ended("b") == 6


def test_this_process_is_a_subreaper_only_while_somebody_needs_it(yard: Launching, tmp_path: Path) -> None:
    assert not libc.child_subreaper()
    other = Launching(tmp_path / "other")
    assert yard.launcher
    assert other.launcher
    assert libc.child_subreaper()
    other.end()
    assert libc.child_subreaper()
    yard.close()
    assert not libc.child_subreaper()


def test_children_of_others_in_this_process_are_theirs_to_wait_for(yard: Launching) -> None:
    process = subprocess.Popen(["sh", "-c", "exit 3"])
    yard.start("a", "true")
    yard.kill_spawners()
    yard.start("b", "true")
    assert yard.ended("b") == 0
    assert process.wait(PATIENCE) == 3


def test_what_a_dead_spawner_kept_is_kept_by_the_next_over_the_death_of_the_launcher(
    yard: Launching, bell: Path
) -> None:
    """First the spawner dies, some day later the supervisor: a log pipe without a reader would end the container."""
    script = f"""
import os
from support.launching import kill
from pycore.launch.launcher import Stdio
null = yard.stdio().stdin
def start(name, *argv, **more):
    read, write = os.pipe2(os.O_CLOEXEC)
    starting = yard.launch(name, *argv, stdio=Stdio(null, write, write, {{"stdout": read}}), **more)
    os.close(write)
    os.close(read)
    return starting
first = start("a", "sh", "-c", 'echo one; read line < "$0"; echo two; exit 7', {str(bell)!r})
first.go()
held = start("h", "sh", "-c", "exit 5", hold=True)
held.entered()
for _ in range(2):
    (old,) = yard.spawners()
    kill(old)
    yard.start("b", "true")
    yard.ended("b")
    os.unlink(yard.run_dir / "spawners" / f"{{old}}.sock")
    del yard.ends["b"]
tell(first.pid)
"""
    first = victim(yard, script)
    (pid,) = first.heard()
    first.kill()
    found = yard.adopt()
    assert set(found) == {"a", "h"}
    assert found["a"].pid == pid
    ring(bell)
    with open(found["a"].kept["stdout"], "rb", buffering=0) as pipe:
        assert pipe.read(4) + pipe.read(4) == b"one\ntwo\n"
    starting = found["h"].starting
    assert starting
    starting.go()
    known_statuses = kernel_tells_exits()
    assert yard.ended("a") == (7 if known_statuses else None)
    assert yard.ended("h") == (5 if known_statuses else None)
    assert (yard.written("a"), yard.written("h")) == (yard.ends["a"], yard.ends["h"])
    os.close(found["h"].kept["stdout"])


def test_an_end_of_a_fostered_container_that_nobody_was_there_for_is_written_down(yard: Launching, bell: Path) -> None:
    script = f"""
from support.launching import kill
first = yard.start("a", *{WAIT!r}, {str(bell)!r})
(old,) = yard.spawners()
kill(old)
yard.start("b", "true")
yard.ended("b")
tell(first.pid)
"""
    first = victim(yard, script)
    (pid,) = first.heard()
    started = known("a", pid)
    pidfd = os.pidfd_open(pid)
    first.kill()
    ring(bell)
    assert wait_readable(pidfd, PATIENCE)
    os.close(pidfd)
    found = yard.adopt([started])["a"]
    status = yard.ended("a") if found.pid else found.status
    assert status == (7 if kernel_tells_exits() else None)
    assert yard.written("a") == status
    assert yard.told.count("a") <= 1


# -- both die ------------------------------------------------------------------------------------------------


def kernel_tells_exits() -> bool:
    """PIDFD_GET_INFO with the exit status: Linux 6.15."""
    process = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(process.pid)
    try:
        process.wait()
        return exit_status(pidfd) == 0
    finally:
        os.close(pidfd)


def both_die(yard: Launching, script: str) -> int:
    first = victim(yard, script)
    (pid,) = first.heard()
    first.kill()
    yard.kill_spawners()
    return int(pid)


def test_when_both_have_died_a_container_is_found_by_its_process(yard: Launching, bell: Path) -> None:
    pid = both_die(yard, f'tell(yard.start("a", *{WAIT!r}, {str(bell)!r}).pid)')
    found = yard.adopt([known("a", pid)])
    assert (found["a"].pid, dict(found["a"].kept)) == (pid, {})
    assert yard.output(found["a"], "a.1", "echo", "inside") == "inside\n"
    ring(bell)
    assert yard.ended("a") == (7 if kernel_tells_exits() else None)
    assert yard.written("a") == yard.ends["a"]


def test_another_process_of_the_same_number_is_not_taken_for_the_container(yard: Launching) -> None:
    pid = both_die(yard, 'tell(yard.start("a", "sleep", "1000").pid)')
    pidfd = os.pidfd_open(pid)
    _, _, started = known("a", pid)
    found = yard.adopt([("a", pid, started + 1), ("b", 1 << 22, 5), ("c", os.getpid(), 0)])
    for name in "abc":
        assert (found[name].pid, found[name].pidfd, found[name].status) == (0, -1, None)
        assert found[name].ended > 0
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    assert yard.told == []


def test_an_end_that_was_written_down_before_both_died_counts(yard: Launching) -> None:
    pid = both_die(yard, 'p = yard.start("a", "sh", "-c", "exit 3"); yard.ended("a"); tell(p.pid)')
    found = yard.adopt([("a", pid, 1)])
    assert (found["a"].pid, found["a"].status) == (0, 3)


# -- spawners of another kind --------------------------------------------------------------------------------

OLD = """
import sys
sys.path[:] = [place for place in sys.path if place != {here!r}]
from pycore.launch import protocol
{change}
from pycore.launch.spawner import main
"""


def to_protocol(_: Path) -> str:
    return "protocol.PROTOCOL = 1"


def to_another_place(_: Path) -> str:
    return "sys.path.append('/nonexistent')"


def to_replaced_code(_: Path) -> str:
    return ""


@pytest.mark.parametrize("change", [to_protocol, to_another_place, to_replaced_code])
def test_a_spawner_that_is_not_ours_is_looked_after_until_it_is_empty(
    yard: Launching, tmp_path: Path, bell: Path, change: Callable[[Path], str]
) -> None:
    """As after an upgrade: of pycore to another protocol, or into another place, or in place."""
    here = tmp_path / "modules"
    here.mkdir()
    (here / "old_spawner.py").write_text(OLD.format(here=str(here), change=change(here)))
    script = f"""
from pycore.launch import interpreter
start = interpreter.start
def other(module, *rest):
    sys.path.append({str(here)!r})
    try:
        return start("old_spawner", *rest)
    finally:
        sys.path.remove({str(here)!r})
interpreter.start = other
tell(yard.start("a", *{WAIT!r}, {str(bell)!r}).pid)
"""
    first = victim(yard, script)
    (pid,) = first.heard()
    (old,) = yard.spawners()
    first.kill()
    os.chmod(here / "old_spawner.py", 0o600)  # an installer puts another file in its place
    assert yard.adopt()["a"].pid == pid
    yard.start("b", "sleep", "1000")
    assert len(yard.spawners()) == 2
    pidfd = pidfd_open(old)
    ring(bell)
    assert yard.ended("a") == 7
    assert wait_readable(pidfd, PATIENCE), "it has nothing left to do"
    os.close(pidfd)
    assert old not in yard.spawners()
    yard.start("c", "true")
    assert yard.ended("c") == 0


def test_an_unchanged_spawner_serves_the_next_launcher(yard: Launching) -> None:
    yard.start("a", "sleep", "1000")
    before = yard.spawners()
    yard.close()
    yard.adopt()
    yard.start("b", "true")
    assert yard.ended("b") == 0
    assert yard.spawners() == before


def test_a_spawner_without_containers_ends_with_its_launcher(yard: Launching) -> None:
    assert yard.launcher
    yard.start("a", "true")
    assert yard.ended("a") == 0
    (pid,) = yard.spawners()
    pidfd = os.pidfd_open(pid)
    yard.close()
    assert wait_readable(pidfd, PATIENCE)
    os.close(pidfd)
    assert yard.spawners() == []


def test_sockets_of_dead_spawners_are_removed(yard: Launching) -> None:
    pid = both_die(yard, 'tell(yard.start("a", "sleep", "1000").pid)')
    dead = yard.spawners()
    assert dead
    yard.adopt([known("a", pid)])
    yard.start("b", "true")
    assert not set(dead) & set(yard.spawners())


def test_a_spawner_that_does_not_answer_is_done_without(yard: Launching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycore.launch.launcher.ANSWER", 0.2)
    first = victim(yard, 'tell(yard.start("a", "sleep", "1000").pid)')
    (pid,) = first.heard()
    first.kill()
    (old,) = yard.spawners()
    os.kill(old, signal.SIGSTOP)
    try:
        found = yard.adopt([known("a", pid)])
        assert found["a"].pid == pid
        yard.start("b", "true")
        assert yard.ended("b") == 0
    finally:
        os.kill(old, signal.SIGCONT)
    signal.pidfd_send_signal(found["a"].pidfd, signal.SIGKILL)
    assert yard.ended("a") == -9
    assert yard.told.count("a") == 1


def test_code_counts_as_replaced_when_a_file_of_it_is_new_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not protocol.is_replaced(10**21)
    assert protocol.is_replaced(0)
    module = type(sys)("gone")
    module.__file__ = str(tmp_path / "gone.py")
    monkeypatch.setitem(sys.modules, "gone", module)
    assert protocol.is_replaced(10**21)
