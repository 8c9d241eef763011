"""What a terminal gets, and what only a terminal gets."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pycore.cli.names import Filter
from pycore.cli.plans import STYLES
from pycore.cli.progress import progress_of
from pycore.cli.rows import COLUMNS, Row, cells, row_of, state_of
from pycore.cli.screen import Cell, Column, Painting
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.errors import PycoreError, UsageError
from pycore.records.state import ContainerRecord

RECORD = ContainerRecord(
    id="0123", app="shop", name="web", directory="/", status="running", pid=7, created=1.0, started=1.0,
    source={"name": "shop", "container": {"web": {"image": "host", "command": ["sh"], "labels": {"tier": "front"}}}},
)  # fmt: skip


class NoPlugins:
    """An engine of which only what plugins tell is asked."""

    def inspect(self, record: ContainerRecord) -> dict[str, Any]:
        return {"address": "10.88.0.2", "ports": ["8080:80"]}


def row(record: ContainerRecord) -> Row:
    return row_of(cast(Engine, NoPlugins()), record)


def session(fd: int, **environment: str) -> Session:
    return Session(cast(Engine, NoPlugins()), Path("/"), environment, (fd, fd, fd))


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(what is written by whoever has the keyboard, the program's side) of a terminal, 60 columns wide."""
    outside, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 60, 0, 0))
    attributes = termios.tcgetattr(inside)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(inside, termios.TCSANOW, attributes)
    yield outside, inside
    os.close(outside)
    os.close(inside)


def shown(outside: int) -> str:
    """All that was written: the kernel hands over no more than a piece of it at a time."""
    found, waiting = os.read(outside, 1 << 16), select.poll()
    waiting.register(outside, select.POLLIN)
    while waiting.poll(0):
        found += os.read(outside, 1 << 16)
    return found.decode()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


ROWS = [[Cell("shop/web", "bold"), Cell("x" * 100), Cell("running", "green")]]
HEAD = (Column("CONTAINER"), Column("COMMAND", shrinks=True), Column("STATUS"))


def test_a_table_fits_the_terminal_and_has_colours(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    session(inside, TERM="xterm-256color").table([], HEAD, lambda: ROWS)
    text = shown(outside)
    assert "\x1b[32mrunning\x1b[0m" in text
    lines = plain(text).splitlines()
    assert [len(line) <= 60 for line in lines] == [True, True]
    assert "…" in lines[1]
    assert lines[1].endswith("running")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(terminal: tuple[int, int], environment: dict[str, str]) -> None:
    outside, inside = terminal
    session(inside, **environment).table([], HEAD, lambda: ROWS)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown(outside))


def test_the_clients_columns_count(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    session(inside, TERM="xterm", COLUMNS="40").table([], HEAD, lambda: ROWS)
    assert max(len(line) for line in plain(shown(outside)).splitlines()) <= 40


def test_what_is_painted_over_never_grows_out_of_the_terminal(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    painting = Painting(session(inside, TERM="xterm"))
    painting.paint(HEAD, ROWS * 50)
    assert len(shown(outside).splitlines()) <= 10
    painting.paint(HEAD, ROWS)
    text = shown(outside)
    assert text.startswith("\x1b[9F"), "back to the first of nine lines"
    assert text.endswith("\x1b[J"), "what is left of the old ones goes"


def test_a_hostile_container_does_not_steer_the_terminal(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    evil = "\x1b]0;pwned\x07\x1b[2J\x9b31m[bold]:smile:"
    source = {"name": "shop", "container": {"web": {"image": evil, "command": [evil]}}}
    record = replace(RECORD, source=source, reason=evil, status="stopped")
    for environment in ({"TERM": "xterm", "COLUMNS": "300"}, {"TERM": "dumb"}):
        own = session(inside, **environment)
        own.table([], COLUMNS, lambda: [cells(row(record), True)])
        own.err(f"pycore: {evil}\n")
        text = shown(outside)
        assert "\x1b]" not in text
        assert "\x1b[2J" not in text
        assert "\x07" not in text
        assert "\x9b" not in text
        assert "\\x1b]0;pwned" in text
        assert "[bold]:smile:" in text, "neither markup nor emoji"


def test_an_apply_has_a_line_for_each_container(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    with progress_of(session(inside, TERM="xterm")) as progress:
        progress("shop/db", "created")
        progress("shop/web", "waiting for db to be healthy")
    last = plain(shown(outside).rpartition("F")[2] or shown(outside))
    assert "shop/web waiting for db to be healthy" in last


def test_a_failed_apply_says_whose_fault_it_was_and_what_went_with_it(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    progress = progress_of(session(inside, TERM="xterm"))

    def apply() -> None:
        with progress:
            for name, words in (("shop/db", "created"), ("shop/web", "starting"), ("shop/late", "pending")):
                progress(name, words)
            raise PycoreError("shop/web: nonesuch: not found")

    with pytest.raises(PycoreError):
        apply()
    last = plain(shown(outside))
    assert "shop/db taken back" in last
    assert "shop/web failed" in last
    assert "shop/late given up" in last


def test_many_containers_are_summed_up(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    with progress_of(session(inside, TERM="xterm")) as progress:
        for number in range(100):
            progress(f"shop/c{number}", "created" if number < 97 else "starting")
    lines = [line for line in plain(shown(outside)).split("\n") if line]
    assert any(line.split()[:2] == ["97", "created"] for line in lines)
    assert "shop/c99 starting" in plain(lines[-1])


def test_where_output_is_piped_only_what_is_done_is_said() -> None:
    out, into = os.pipe()
    with progress_of(session(into)) as progress:
        for words in ("pending", "preparing", "starting", "created", "waiting to be healthy", "healthy"):
            progress("shop/web", words)
    os.close(into)
    assert os.read(out, 4096) == b"shop/web created\nshop/web healthy\n"
    os.close(out)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "running"),
        ({"health": "healthy"}, "(healthy)"),
        ({"paused": ({},)}, "paused, up"),
        ({"status": "stopped", "exit_status": 0, "finished": 2.0}, "stopped (0)"),
        (
            {"status": "stopped", "exit_status": -9, "reason": "memory limit 64M reached"},
            "(137: killed by SIGKILL: memory limit 64M reached)",
        ),
        ({"status": "stopped", "exit_status": None}, "stopped (unknown)"),
        ({"status": "stopped", "exit_status": 3, "restart_at": 4e9}, "restarting in"),
        ({"status": "created"}, "created"),
    ],
)
def test_the_status_says_it_all(fields: dict[str, Any], words: str) -> None:
    assert words in cells(row(replace(RECORD, **fields)), True)[2].text


def test_filters_narrow_by_key_and_widen_by_value() -> None:
    stopped = replace(RECORD, name="db", status="stopped", health="", source=RECORD.source)
    assert Filter(["app=shop", "label=tier"])(RECORD)
    assert Filter(["label=tier=front"])(RECORD)
    assert not Filter(["label=tier=back"])(RECORD)
    assert not Filter(["app=shop", "status=stopped"])(RECORD)
    assert [Filter(["status=stopped", "status=running"])(each) for each in (RECORD, stopped)] == [True, True]
    assert Filter(["health=none"])(stopped)
    assert state_of(replace(stopped, restart_at=1.0)) == "restarting"
    for wrong in ("nonesuch=1", "app", "=x"):
        with pytest.raises(UsageError):
            Filter([wrong])


def test_neither_a_piped_table_nor_the_command_imports_rich() -> None:
    code = """
import os, sys
from pathlib import Path
from pycore.cli.session import Session
from pycore.cli import perform
from pycore.engine import Engine
out = os.open(os.devnull, os.O_WRONLY)
engine = Engine(sys.argv[1], sys.argv[1])
for words in (["ps", "-a"], ["plugins"], ["--help"], ["ps", "--json"], ["ps", "--nonsense"]):
    perform(Session(engine, Path("/"), {"TERM": "xterm"}, (out, out, out)), words)
print("rich" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code, "/nonexistent/run"], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n", run.stderr


def test_a_client_with_a_high_descriptor_is_waited_for() -> None:
    """A supervisor of a thousand containers has more descriptors than select(2) knows."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit[1], 2048), limit[1]))
    ours, theirs = socket.socketpair()
    high = socket.socket(fileno=fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 1100))
    with ours, theirs, high:
        own = Session(cast(Engine, NoPlugins()), Path("/"), {}, (0, 1, 2), high)
        assert not own.rest(0.001)
        theirs.send(bytes([10]))
        assert not own.rest(0.001), "SIGUSR1 does not end a command"
        theirs.send(bytes([2]))
        assert own.rest(1000), "SIGINT does"
        assert own.gone()
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_who_hangs_up_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        own = Session(cast(Engine, NoPlugins()), Path("/"), {}, (0, 1, 2), ours)
        theirs.close()
        assert own.rest(1000)


def test_a_plan_in_a_terminal_has_the_colours_of_its_signs(terminal: tuple[int, int]) -> None:
    outside, inside = terminal
    text = "+ create t/a\n- remove t/b\n    because \x1b[2J\n"
    session(inside, TERM="xterm").lines({}, lambda: text, STYLES)
    assert shown(outside) == "\x1b[32m+ create t/a\x1b[0m\n\x1b[31m- remove t/b\x1b[0m\n    because \\x1b[2J\n"
    session(inside, TERM="dumb").lines({}, lambda: text, STYLES)
    assert shown(outside) == text.replace("\x1b", "\\x1b")
