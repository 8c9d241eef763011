"""Logs as a person sees them: what comes when, of whom, and that nothing a host does to us loses a line."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command, wait_readable

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

DETACHED = ("run", "-d", "--network", "none")


def start(pycore: Command, script: str, *flags: str, name: str = "one") -> None:
    pycore(*DETACHED, "--name", name, *flags, "host", "sh", "-c", script)


def ran(pycore: Command, script: str, *flags: str, name: str = "one") -> None:
    """Run it to its end."""
    start(pycore, script, *flags, name=name)
    assert pycore("wait", name) == "0\n"


def kill(pid: int) -> None:
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert wait_readable(handle, 20)
    os.close(handle)


def rest(process: subprocess.Popen[str]) -> str:
    """What a command prints until its end."""
    assert process.stdout
    assert process.stderr
    with process.stdout, process.stderr:
        out = process.stdout.read()
        assert process.wait(20) == 0, process.stderr.read()
    return out


def root_of(pycore: Command, name: str = "one") -> Path:
    return Path(f"/proc/{json.loads(pycore('inspect', name))['pid']}/root")


# -- what is asked for -----------------------------------------------------------------------------------


def test_tail_since_until_and_timestamps(pycore: Command) -> None:
    ran(pycore, "for n in 1 2 3 4 5; do echo line $n; sleep 0.02; done")
    stamped = pycore("logs", "-t", "one").splitlines()
    times, lines = zip(*(line.split(" ", 1) for line in stamped), strict=True)
    assert lines == tuple(f"line {n}" for n in range(1, 6))
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", moment) for moment in times)
    assert list(times) == sorted(set(times))
    assert pycore("logs", "--tail", "2", "one") == "line 4\nline 5\n"
    assert pycore("logs", "--tail", "all", "one") == "".join(f"{line}\n" for line in lines)
    assert pycore("logs", "--tail", "0", "one") == ""
    assert pycore("logs", "--since", times[3], "one") == "line 4\nline 5\n", "a printed time finds its line again"
    assert pycore("logs", "--until", times[1], "one") == "line 1\nline 2\n"
    assert pycore("logs", "--since", times[1], "--until", times[2], "--tail", "1", "one") == "line 3\n"
    assert pycore("logs", "--since", "1h", "--tail", "1", "one") == "line 5\n"
    assert pycore("logs", "--until", "1h", "one") == ""
    assert pycore("logs", "--since", str(int(time.time()) + 5), "one") == ""


@pytest.mark.parametrize("words", [("--tail", "some"), ("--tail", "-1"), ("--since", "yesterday"), ("--until", "")])
def test_nonsense_is_refused(pycore: Command, words: tuple[str, str]) -> None:
    ran(pycore, "echo x")
    assert words[1] in pycore.fails("logs", *words, "one", status=2)


def test_bytes_that_are_no_text_pass(pycore: Command) -> None:
    ran(pycore, r"printf '\377\000\001\n'; printf 'no end'")
    process = subprocess.run([pycore.program, "logs", "one"], env=pycore.env(), capture_output=True, check=True)
    assert process.stdout == b"\xff\x00\x01\nno end"


TWO = """\
name = "duo"
[container.web]
image = "host"
command = ["sh", "-c", "echo first; while [ ! -e /go ]; do sleep 0.02; done; echo third; echo wrong >&2"]
[container.web.network]
driver = "none"
[container.database]
image = "host"
command = ["sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; echo second; printf unended"]
[container.database.network]
driver = "none"
"""


def both(pycore: Command) -> None:
    """Two containers that have written: first, second and unended, third."""
    pycore("apply", pycore.write(TWO))
    follower = pycore.popen("logs", "-f", "database")
    assert follower.stdout
    (root_of(pycore, "database") / "go").touch()
    assert follower.stdout.readline() == "second\n"
    assert rest(follower) == "unended"
    (root_of(pycore, "web") / "go").touch()
    pycore("wait", "web")


def test_several_are_merged_by_time_and_say_whose_line_it_is(pycore: Command) -> None:
    both(pycore)
    done = pycore.run("logs", "duo")
    expected = ["web       | first", "database  | second", "database  | unended", "web       | third"]
    assert done.out.splitlines() == expected
    assert done.err == "web       | wrong\n"
    assert pycore("logs", "--no-prefix", "web", "database").splitlines() == ["first", "second", "unended", "third"]
    assert pycore("logs", "--tail", "1", "duo").splitlines() == ["database  | unended"], "the last of web is an error"
    rows = [json.loads(line) for line in pycore("logs", "--json", "duo").splitlines()]
    assert [(row["container"], row["stream"], row["text"]) for row in rows if row["container"] == "duo/web"] == [
        ("duo/web", "stdout", "first\n"), ("duo/web", "stdout", "third\n"), ("duo/web", "stderr", "wrong\n"),
    ]  # fmt: skip


@pytest.mark.parametrize(("variable", "coloured"), [("TERM=xterm", True), ("NO_COLOR=1", False), ("TERM=dumb", False)])
def test_names_are_coloured_in_a_terminal(pycore: Command, variable: str, coloured: bool) -> None:
    both(pycore)
    name, _, value = variable.partition("=")
    pycore.environment |= {"TERM": "xterm", name: value}
    master, slave = pty.openpty()
    process = pycore.popen("logs", "duo", stdout=slave)
    os.close(slave)
    assert process.wait(20) == 0
    shown = os.read(master, 10_000).decode()
    process.communicate()
    os.close(master)
    colours = dict(re.findall("\x1b\\[(\\d+)m(\\w+) *\\| \x1b\\[0m", shown))
    assert sorted(colours.values()) == (["database", "web"] if coloured else [])
    assert ("\x1b" in shown) is coloured


# -- following -------------------------------------------------------------------------------------------


def test_follow_shows_what_comes_and_ends_with_the_container(pycore: Command) -> None:
    start(pycore, "echo before; while [ ! -e /go ]; do sleep 0.02; done; echo after")
    follower = pycore.popen("logs", "-f", "one")
    assert follower.stdout
    assert follower.stdout.readline() == "before\n"
    (root_of(pycore) / "go").touch()
    assert rest(follower) == "after\n"
    assert follower.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_follow_ends_when_it_is_asked_to(pycore: Command, number: int) -> None:
    start(pycore, "echo begun; exec sleep 1000")
    follower = pycore.popen("logs", "-f", "-t", "one")
    assert follower.stdout
    assert "begun" in follower.stdout.readline()
    follower.send_signal(number)
    follower.communicate(timeout=20)
    assert follower.returncode == 130
    pycore("kill", "one")


def test_follow_ends_when_nobody_reads(pycore: Command) -> None:
    start(pycore, "echo begun; exec sleep 1000")
    follower = pycore.popen("logs", "-f", "one")
    assert follower.stdout
    follower.stdout.readline()
    follower.stdout.close()
    assert follower.wait(20) is not None
    assert follower.stderr
    follower.stderr.close()
    pycore("kill", "one")


def test_follow_goes_on_over_a_restart(pycore: Command) -> None:
    script = "echo run; while [ ! -e /go ]; do sleep 0.02; done; rm /go; exit 1"
    start(pycore, script, "--restart", "on-failure:1")
    follower = pycore.popen("logs", "-f", "one")
    assert follower.stdout
    for _ in range(2):
        assert follower.stdout.readline() == "run\n"
        (root_of(pycore) / "go").touch()
    assert rest(follower) == ""


# -- bounds ----------------------------------------------------------------------------------------------


def log_directory(pycore: Command) -> Path:
    (directory,) = pycore.data_dir.glob("containers/*/log")
    return directory


def size_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def test_a_log_is_bounded_and_keeps_the_newest(pycore: Command) -> None:
    ran(pycore, "seq 1 100000", "--log-max-size", "32K", "--log-max-files", "3")
    assert size_of(log_directory(pycore)) <= 3 * 32 * 1024
    kept = pycore("logs", "one").splitlines()
    assert kept == [str(number) for number in range(100_001 - len(kept), 100_001)]
    assert len(kept) > 10_000


def test_bounds_are_changed_while_it_runs(pycore: Command) -> None:
    text = """
        name = "changing"
        [container.one]
        image = "host"
        command = ["sh", "-c", "while :; do while [ ! -e /go ]; do sleep 0.02; done; seq 1 50000; rm /go; done"]
        stop_signal = "KILL"
        network = {{ driver = "none" }}
        logging = {{ max_size = "{size}", max_files = 2 }}
    """
    pycore("apply", pycore.write(text.format(size="1M")))
    root = root_of(pycore)
    follower = pycore.popen("logs", "-f", "one")
    assert follower.stdout
    for size, most in (("1M", 2 << 20), ("16K", 32 << 10)):
        assert pycore("apply", pycore.write(text.format(size=size)))
        (root / "go").touch()
        while follower.stdout.readline() != "50000\n":
            pass
        assert size_of(log_directory(pycore)) <= most
    assert root_of(pycore) == root
    pycore("down", "changing")
    follower.communicate(timeout=20)


def test_a_flood_costs_no_memory(pycore: Command) -> None:
    ran(pycore, "yes | head -c 1000000", name="small")

    def peak() -> int:
        status = Path(f"/proc/{pycore.supervisor()}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])

    before = peak()
    ran(pycore, "yes 0123456789 | head -c 300000000")
    assert pycore("logs", "--tail", "1", "one").startswith("0")
    assert peak() - before < 8 << 10


# -- nothing is lost -------------------------------------------------------------------------------------


def test_a_supervisor_that_is_killed_again_and_again_loses_and_doubles_nothing(pycore: Command) -> None:
    rounds, step = 6, 200_000
    script = f"""
        n=0
        while [ $n -lt {rounds} ]; do
            while [ ! -e /go$n ]; do sleep 0.01; done
            seq $((n * {step} + 1)) $(((n + 1) * {step}))
            n=$((n + 1))
        done
    """
    start(pycore, script, "--log-max-size", "1G")
    root = root_of(pycore)
    chance = random.Random(5)
    for number in range(rounds):
        supervisor = pycore.supervisor()
        (root / f"go{number}").touch()
        time.sleep(chance.random() * 0.06)  # somewhere in the middle of it
        kill(supervisor)
        pycore("ps", "-q")  # the next one takes over
    assert pycore("wait", "one") == "0\n"
    process = pycore.popen("logs", "one")
    assert process.stdout
    wrong = [(number, line) for number, line in enumerate(process.stdout, 1) if int(line) != number]
    process.communicate()
    assert wrong[:1] == []
    assert pycore("logs", "--tail", "1", "one") == f"{rounds * step}\n"


@pytest.fixture
def small_disk(pycore: Command) -> Iterator[Path]:
    """The data dir on a disk of its own."""
    pycore.data_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", pycore.data_dir], check=True)
    yield pycore.data_dir
    pycore.end()
    subprocess.run(["umount", "-l", pycore.data_dir], check=True)


def test_a_full_disk_loses_output_and_nothing_else(pycore: Command, small_disk: Path) -> None:
    script = "while [ ! -e /mnt/go ]; do sleep 0.02; done; seq 1 1000000; echo done > /mnt/done"
    shared = pycore.directory / "shared"
    shared.mkdir()
    pycore(*DETACHED, "--name", "one", "-v", f"{shared}:/mnt", "--log-max-size", "64M", "host", "sh", "-c", script)
    ballast = small_disk / "ballast"
    (shared / "go").touch()
    assert pycore("wait", "one") == "0\n", "it ran to its end"
    assert (shared / "done").read_text() == "done\n"
    done = pycore.run("logs", "one")
    assert done.status == 0
    kept = done.out.splitlines()
    assert kept[:3] == ["1", "2", "3"]
    assert re.search(r"one/one: \d+ bytes (are missing|could not be kept)", done.err)
    assert any(event["what"] == "log-lost" for event in events(pycore))
    ballast.unlink(missing_ok=True)


def events(pycore: Command) -> list[dict[str, object]]:
    return [json.loads(line) for line in (pycore.run_dir / "events.jsonl").read_text().splitlines()]


# -- drivers ---------------------------------------------------------------------------------------------


def test_none_keeps_nothing_and_says_so(pycore: Command) -> None:
    ran(pycore, "seq 1 100000", "--log-driver", "none")
    error = pycore.fails("logs", "one")
    assert 'driver = "none"' in error
    assert not list(pycore.data_dir.glob("containers/*/log"))


def test_of_several_the_readable_are_shown(pycore: Command) -> None:
    ran(pycore, "echo kept", name="a")
    ran(pycore, "echo gone", "--log-driver", "none", name="b")
    done = pycore.run("logs", "a", "b")
    assert (done.status, done.out) == (0, "a/a  | kept\n")
    assert "b/b: no output is kept" in done.err


def test_output_that_went_to_a_terminal_is_not_kept(pycore: Command) -> None:
    assert pycore("run", "--name", "one", "--network", "none", "host", "echo", "shown") == "shown\n"
    assert "went to the terminal that ran it" in pycore.fails("logs", "one")


def test_a_removed_container_leaves_no_log(pycore: Command) -> None:
    ran(pycore, "echo x")
    assert log_directory(pycore).exists()
    pycore("rm", "one")
    assert not list(pycore.data_dir.glob("containers/*"))


@pytest.mark.skipif(os.path.exists("/run/systemd/journal/socket"), reason="this host has a journal")
def test_a_host_without_a_journal_is_said_at_once(pycore: Command) -> None:
    error = pycore.fails(*DETACHED, "--log-driver", "journald", "host", "true", status=125)
    assert "there is no journal on this host" in error
