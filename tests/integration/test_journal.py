"""The driver ``journald`` with a real journal: what a container writes is there, for pycore and for journalctl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Command
from support.journal import OwnJournal

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp", "journald")]

LOGGED = ("run", "-d", "--network", "none", "--log-driver", "journald", "--name")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[OwnJournal]:
    journal = OwnJournal(tmp_path)
    yield journal
    journal.end()


@pytest.fixture
def pycore(journal: OwnJournal, tmp_path: Path) -> Iterator[Command]:
    """The command, where it sees the journal; it ends before the journal does."""
    command = journal.inside(Command(tmp_path))
    yield command
    command.end()


def ran(pycore: Command, name: str, script: str) -> None:
    pycore(*LOGGED, name, "host", "sh", "-c", script)
    assert pycore("wait", name) == "0\n"


def test_lines_are_entries_of_the_journal_with_their_container(pycore: Command, journal: OwnJournal) -> None:
    ran(pycore, "one", "echo out; echo err >&2; printf 'no end'")
    assert sorted(pycore("logs", "one").split("\n")) == ["", "no end", "out"]
    done = pycore.run("logs", "one")
    assert done.err == "err\n"
    (line, *_) = journal.journalctl("-o", "json", "SYSLOG_IDENTIFIER=one/one", "PRIORITY=3").splitlines()
    entry = json.loads(line)
    assert (entry["MESSAGE"], entry["CONTAINER_NAME"]) == ("err", "one/one")
    identity = json.loads(pycore("inspect", "one"))["id"]
    assert journal.journalctl("-o", "cat", f"CONTAINER_ID={identity}", "PRIORITY=6") == "out\nno end\n"


def test_what_is_kept_is_found_by_number_and_by_time(pycore: Command) -> None:
    ran(pycore, "one", "for n in 1 2 3 4 5; do echo line $n; done")
    ran(pycore, "two", "echo of another")
    stamped = [line.split(" ", 1) for line in pycore("logs", "-t", "one").splitlines()]
    assert [line for _, line in stamped] == [f"line {n}" for n in range(1, 6)]
    assert pycore("logs", "--tail", "2", "one") == "line 4\nline 5\n"
    assert pycore("logs", "--tail", "0", "one") == ""
    assert pycore("logs", "--since", stamped[3][0], "one") == "line 4\nline 5\n"
    assert pycore("logs", "--until", stamped[1][0], "one") == "line 1\nline 2\n"


def test_bytes_come_back_as_they_were_written(pycore: Command) -> None:
    """The journal takes text; what is none is kept as bytes, and a line that no datagram holds as a file."""
    ran(pycore, "one", r"printf 'odd \001\033[31m\377 bytes\n'; head -c 250000 /dev/zero | tr '\0' x; echo; echo")
    process = subprocess.run([pycore.program, "logs", "one"], env=pycore.env(), capture_output=True, check=True)
    assert process.stdout == b"odd \x01\x1b[31m\xff bytes\n" + b"x" * 250_000 + b"\n\n"


WAITS = "echo first; while [ ! -e /go ]; do sleep 0.02; done; echo last"


def let_go(pycore: Command) -> None:
    """Let a container that runs WAITS go on."""
    (Path("/proc") / str(json.loads(pycore("inspect", "one"))["pid"]) / "root/go").touch()


def test_followed_until_the_end_over_a_journal_that_is_started_anew(pycore: Command, journal: OwnJournal) -> None:
    pycore(*LOGGED, "one", "host", "sh", "-c", WAITS)
    follower = pycore.popen("logs", "-f", "one")
    assert follower.stdout
    assert follower.stdout.readline() == "first\n"
    journal.start_anew()
    let_go(pycore)
    out, err = follower.communicate(timeout=60)
    assert (out, err, follower.returncode) == ("last\n", "", 0)
    assert pycore("logs", "one") == "first\nlast\n"
