"""``pycore events``: what a person hears of what happens to containers."""

from __future__ import annotations

import json
import signal

import pytest
from support.command import Command
from support.happenings import Happenings

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SPEC = """
name = "t"
[container.one]
image = "host"
command = ["sh", "-c", "exit 3"]
network.driver = "none"
[container.two]
image = "host"
command = ["sleep", "1000"]
stop_signal = "KILL"
network.driver = "none"
"""


def test_life_of_an_app(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        file = pycore.write(SPEC)
        pycore("apply", file)
        happenings.until(lambda event: event["what"] == "die" and event["container"] == "one")
        pycore("stop", "two")
        pycore("down", file)
        happenings.word("down")
        for name, middle in {"one": ["die"], "two": ["stop", "die"]}.items():
            words = [event["what"] for event in happenings.events if event.get("container") == name]
            assert words == ["create", "start", *middle, "destroy"]
        whole = [event["what"] for event in happenings.events if "container" not in event]
        assert whole == ["apply", "down"]
        times = [event["time"] for event in happenings.events]
        assert times == sorted(times)
        [die] = happenings.of("die", "one")
        assert (die["app"], die["exit_status"]) == ("t", 3)
        assert die["id"]


def test_past_is_filtered(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(SPEC))
        happenings.word("die")
        now = happenings.events[-1]["time"]
        past = ("events", "--json", "--until", str(now))
        found = [json.loads(line) for line in pycore(*past, "--filter", "container=t/one").splitlines()]
        assert [event["what"] for event in found] == ["create", "start", "die"]
        found = [
            json.loads(line) for line in pycore(*past, "--filter", "what=start", "--filter", "what=die").splitlines()
        ]
        assert sorted(event["what"] for event in found) == ["die", "start", "start"]
        text = pycore("events", "--until", str(now), "--filter", "what=die")
        assert text.endswith('Z die t/one exit_status=3 reason=""\n')


def test_repair_is_told(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(SPEC))
        stray = pycore.data_dir / "containers" / "nobodys"
        stray.mkdir(parents=True)
        pycore.run("doctor", "--repair")
        assert "nobodys" in happenings.word("repair")["finding"]
        assert not stray.exists()


def test_what_is_done_to_one_that_runs_is_told(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(SPEC))
        pycore("exec", "two", "sh", "-c", "exit 7", status=7)
        end = happenings.word("exec-die")
        (begin,) = happenings.of("exec", "two")
        assert (begin["command"], begin["pid"]) == (end["command"], end["pid"])
        assert end["exit_status"] == 7
        assert pycore.fails("exec", "two", "/no/such/program", status=127)
        pycore("kill", "-s", "CONT", "two")
        assert happenings.word("kill")["signal"] == signal.SIGCONT
        pycore("apply", pycore.write(SPEC.replace("[container.two]", "[container.two]\nresources.memory = '64M'")))
        assert happenings.word("update")["container"] == "two"
        pycore("kill", "two")
        happenings.until(lambda event: event["what"] == "die" and event["container"] == "two")
        words = [event["what"] for event in happenings.events if event.get("container") == "two"]
        assert words == ["create", "start", "exec", "exec-die", "kill", "update", "kill", "die"]


GREEDY = "head -c 200000000 /dev/zero | tail -c 150000000 > /dev/null"
"""tail keeps all that it may have to print."""


def greedy(pycore: Command, name: str, script: str) -> None:
    limits = ("--memory", "32M", "--network", "none")
    pycore("run", "-d", "--name", name, *limits, "host", "sh", "-c", script)


def test_a_process_that_is_killed_for_want_of_memory_is_told_of_while_the_container_runs(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        greedy(pycore, "one", f"{GREEDY}; exec sleep 1000")
        event = happenings.word("oom")
        assert (event["app"], event["container"]) == ("one", "one")
        (row,) = pycore.json("ps")
        assert row["status"] == "running"


def test_want_of_memory_is_told_before_the_end_that_comes_of_it(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        greedy(pycore, "one", GREEDY)
        assert "memory limit" in happenings.word("die")["reason"]
        words = happenings.words()
        assert words.index("oom") < words.index("die")
