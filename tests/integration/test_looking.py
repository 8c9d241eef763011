"""What a person sees and does with containers that are there: ps, top, stats, events, and the verbs of their life."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.command import Command

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

NO_NETWORK = ("--network", "none")


def spec(*names: str, more: str = "", app: str = "t") -> str:
    text = f'name = "{app}"\n'
    for name in names:
        text += f'[container.{name}]\nimage = "host"\ncommand = ["sleep", "1000"]\nstop_signal = "KILL"\n{more}'
        text += f'[container.{name}.network]\ndriver = "none"\n'
    return text


def names(pycore: Command, *words: str) -> list[str]:
    return pycore("ps", "-q", *words).split()


def in_terminal(pycore: Command, *words: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    outside, inside = pty.openpty()
    pycore.environment |= {"TERM": "xterm"} | environment
    process = pycore.popen(*words, stdout=inside, stderr=inside)
    os.close(inside)
    text = b""
    while True:
        try:
            data = os.read(outside, 4096)
        except OSError:  # how a terminal says that nobody writes any more
            break
        text += data
    os.close(outside)
    process.wait(30)
    return text.decode()


def test_ps_tells_what_runs_and_how_it_fares(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a", "b", more='labels = { tier = "front" }\n')))
    pycore("run", "--name", "task", *NO_NETWORK, "host", "sh", "-c", "exit 3", status=3)
    head, a, b = pycore("ps").splitlines()
    assert head.split() == ["CONTAINER", "IMAGE", "STATUS", "RESTARTS", "ADDRESS", "PORTS", "COMMAND"]
    assert re.fullmatch(r"t/a +host +running \d+s +0 +- +- +sleep 1000", a)
    assert b.startswith("t/b")
    assert "stopped (3) " in pycore("ps", "-a")
    assert sorted(names(pycore, "-a")) == ["t/a", "t/b", "task/task"]
    assert names(pycore, "--filter", "status=stopped") == ["task/task"]
    assert names(pycore, "--filter", "app=t", "--filter", "label=tier=front") == ["t/a", "t/b"]
    assert names(pycore, "-n", "1") == ["task/task"]
    assert "must be KEY=VALUE" in pycore.fails("ps", "--filter", "colour=blue", status=2)


def test_a_killed_container_says_by_what(pycore: Command) -> None:
    pycore("run", "-d", "--name", "x", *NO_NETWORK, "host", "sleep", "1000")
    pycore("kill", "x")
    pycore("wait", "x")
    (row,) = pycore.json("ps", "-a")
    assert (row["exit_status"], row["status"], row["restarts"]) == (137, "stopped", 0)
    assert "stopped (137: killed by SIGKILL) " in pycore("ps", "-a")
    assert row["reason"] == "killed by SIGKILL"


def test_one_that_a_signal_of_its_own_has_ended_says_so(pycore: Command) -> None:
    fault = ("python3", "-c", "import ctypes; ctypes.string_at(0)")
    pycore("run", "--name", "x", *NO_NETWORK, "host", *fault, status=128 + signal.SIGSEGV)
    (row,) = pycore.json("ps", "-a")
    assert row["reason"] == "killed by SIGSEGV"


def test_one_whose_memory_was_used_up_says_so(pycore: Command) -> None:
    eat = ("python3", "-c", "b'x' * (1 << 30)")
    pycore("run", "--name", "x", "-m", "32M", *NO_NETWORK, "host", *eat, status=137)
    assert "stopped (137: killed by SIGKILL: memory limit 32M reached) " in pycore("ps", "-a")
    (row,) = pycore.json("ps", "-a")
    assert (row["exit_status"], row["reason"]) == (137, "killed by SIGKILL: memory limit 32M reached")


def test_colours_in_a_terminal_only(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a")))
    assert "\x1b" not in pycore("ps")
    assert "\x1b[32mrunning" in in_terminal(pycore, "ps")
    assert "\x1b[3" not in in_terminal(pycore, "ps", NO_COLOR="1")
    narrow = in_terminal(pycore, "ps", COLUMNS="50", NO_COLOR="1")
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in narrow.splitlines()) <= 50


def test_an_apply_in_a_terminal_shows_how_each_container_comes_along(pycore: Command) -> None:
    text = spec("db", "web").replace("[container.web]\n", '[container.web]\ndepends_on = { db = "started" }\n')
    shown = in_terminal(pycore, "apply", pycore.write(text))
    assert "t/web waiting for db to be started" in shown
    assert re.search(r"✔.*t/web created", shown)
    assert "t/db removed" in pycore("down", "t")


def test_hostile_words_do_not_reach_the_terminal(pycore: Command) -> None:
    evil = "\x1b]0;pwned\x07\u202e\x9b2J"
    script = f"exec -a '{evil}' sleep 1000"
    pycore("run", "-d", "--name", "evil", "-l", f"a={evil}", *NO_NETWORK, "host", "bash", "-c", script)
    looks = (
        ("ps", "--no-trunc"),
        ("top", "evil"),
        ("stats", "--no-stream"),
        ("events", "--since", "10m", "--until", "0s"),
    )
    for words in looks:
        for text in (pycore(*words), in_terminal(pycore, *words)):
            assert not re.search("\x1b\\]|\x07|\u202e|\x9b", text), words
    assert "\\x1b]0;pwned" in pycore("top", "evil")
    failed = pycore.run("run", "--rm", *NO_NETWORK, "host", evil)
    assert failed.status == 127
    assert "\x1b" not in failed.err
    assert "\x1b" not in pycore.fails("stop", evil)


def test_top_lists_the_processes_of_a_container(pycore: Command) -> None:
    pycore("run", "-d", "--name", "x", *NO_NETWORK, "host", "sh", "-c", "sleep 1001 & exec sleep 1002")
    rows = pycore.json("top", "x")
    (row,) = pycore.json("ps")
    assert rows[0]["pid"] == row["pid"]
    assert {each["command"] for each in rows} >= {"sleep 1001"}
    assert rows[0]["user"] == "0"
    assert pycore("top", "x").splitlines()[0].split() == ["PID", "PPID", "USER", "CPU", "MEMORY", "STARTED", "COMMAND"]
    pycore("kill", "x")
    pycore("wait", "x")
    assert pycore.json("top", "x") == []


def test_stats_count_what_is_used(pycore: Command) -> None:
    pycore("run", "-d", "--name", "busy", "--memory", "64M", *NO_NETWORK, "host", "sh", "-c", "while :; do :; done")
    (busy,) = json.loads(pycore("stats", "--no-stream", "--json", "busy"))
    assert busy["container"] == "busy/busy"
    assert busy["cpu_percent"] > 1
    assert 0 < busy["memory_bytes"] < 64 << 20
    assert busy["memory_limit_bytes"] == 64 << 20
    assert busy["pids"] >= 1
    text = pycore("stats", "--no-stream")
    assert re.search(r"busy/busy +[\d.]+% +\S+ / 64M", text)
    living = pycore.popen("stats", "--json")
    assert living.stdout
    assert json.loads(living.stdout.readline())[0]["container"] == "busy/busy"
    living.send_signal(signal.SIGINT)
    living.communicate(timeout=20)
    assert living.returncode == 0
    pycore("rm", "-f", "busy")


def test_events_tell_what_happens(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a")))
    follower = pycore.popen("events", "--json", "--since", "1h", "--filter", "container=t/a")
    assert follower.stdout
    pycore("stop", "a")
    seen: list[str] = []
    while "die" not in seen:
        event = json.loads(follower.stdout.readline())
        assert (event["app"], event["container"]) == ("t", "a")
        seen.append(event["what"])
    assert seen.index("stop") < seen.index("die")
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=20)
    past = pycore("events", "--since", "1h", "--until", "0s", "--filter", "what=start").splitlines()
    assert [line.split()[1:] for line in past] == [["start", "t/a"]]
    assert pycore("events", "--until", "0s", "--filter", "what=nonesuch") == ""
    assert "is no moment" in pycore.fails("events", "--since", "yesterday", status=2)


def test_names_of_apps_mean_all_their_containers(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a", "b")))
    pids = {row["container"]: row["pid"] for row in pycore.json("ps")}
    assert pycore("restart", "-t", "0", "t").split() == ["t/a", "t/b"]
    again = {row["container"]: row["pid"] for row in pycore.json("ps")}
    assert again.keys() == pids.keys()
    assert all(again[name] != pids[name] for name in pids)
    assert pycore("stop", "t").split() == ["t/a", "t/b"]
    assert pycore("wait", "t").split() == ["137", "137"]
    assert pycore("start", "t").split() == ["t/a", "t/b"]
    assert "t/a is running" in pycore.fails("rm", "t")
    assert pycore("rm", "-f", "t/a", "t").split() == ["t/a", "t/b"]
    assert names(pycore, "-a") == []


def test_each_word_that_names_nothing_is_said_and_the_rest_is_done(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a")))
    done = pycore.run("stop", "nonesuch", "a", "neither")
    assert (done.status, done.out) == (1, "t/a\n")
    assert "no such container: nonesuch" in done.err
    assert "neither" in done.err


def test_what_depends_on_others_stops_first_and_starts_last(pycore: Command) -> None:
    text = spec("db", "web").replace("[container.web]\n", '[container.web]\ndepends_on = { db = "started" }\n')
    pycore("apply", pycore.write(text))
    pycore("stop", "t")
    pycore("start", "t")
    told = pycore("events", "--since", "1h", "--until", "0s", "--filter", "what=die", "--filter", "what=start")
    order = [tuple(line.split()[1:3]) for line in told.splitlines()]
    assert order == [
        ("start", "t/db"), ("start", "t/web"), ("die", "t/web"), ("die", "t/db"), ("start", "t/db"), ("start", "t/web"),
    ]  # fmt: skip


def test_pause_holds_a_container_still(pycore: Command) -> None:
    pycore("run", "-d", "--name", "x", *NO_NETWORK, "host", "sleep", "1000")
    assert pycore("pause", "x") == "x/x\n"
    assert "paused, up" in pycore("ps")
    assert names(pycore, "--filter", "status=paused") == ["x/x"]
    assert "paused" in pycore.fails("pause", "x")
    assert pycore("unpause", "x") == "x/x\n"
    assert "running" in pycore("ps")
    pycore("rm", "-f", "x")


def test_create_start_attach_and_rename(pycore: Command) -> None:
    assert pycore("create", "--name", "x", *NO_NETWORK, "host", "sh", "-c", "echo out; echo err >&2; exit 5") == "x/x\n"
    (row,) = pycore.json("ps", "-a")
    assert row["status"] == "created"
    assert Path(f"/proc/{row['pid']}").exists(), "it waits before its program"
    assert pycore("rename", "x", "y") == "y/y\n"
    assert "cannot be a name" in pycore.fails("rename", "y", "../z", status=2)
    done = pycore.run("start", "-a", "y")
    assert (done.status, done.out, done.err) == (5, "out\n", "err\n")
    assert "takes one container" in pycore.fails("start", "-a", "y", "x", status=2)
    pycore("rm", "y")


def test_an_apply_that_waits_can_be_interrupted_and_is_taken_back(pycore: Command) -> None:
    events = pycore.popen("events", "--since", "1h", "--filter", "what=start")
    process = pycore.popen("apply", pycore.write(spec("task", more='goal = "exit-0"\n')))
    assert events.stdout
    assert "start t/task" in events.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "given up" in err
    events.send_signal(signal.SIGINT)
    events.communicate(timeout=20)
    assert names(pycore, "-a") == []


def test_wait_can_be_interrupted(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a")))
    waiting = pycore.popen("wait", "a")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=20)
    assert waiting.returncode == 130


def test_the_unit_is_printed_and_written(pycore: Command) -> None:
    text = pycore("systemd")
    assert f"--run-dir {pycore.run_dir} --data-dir {pycore.data_dir} supervise" in text
    assert pycore("systemd", "--output", "unit") == f"{pycore.directory / 'unit'}\n"
    assert (pycore.directory / "unit").read_text() == text
    assert "cannot write" in pycore.fails("systemd", "--output", "no/such/unit")
