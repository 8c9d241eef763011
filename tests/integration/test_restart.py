"""Restart policies, as a person meets them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.command import Command, wait_readable
from support.happenings import Happenings

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SLEEP = '["sleep", "1000"]'
QUICK = 'delay_min = "10ms"\ndelay_max = "20ms"'
SLOW = 'delay_min = "1h"\ndelay_max = "1h"'


def spec(command: str, restart: str, backoff: str = QUICK) -> str:
    return (
        f'name = "t"\n[container.one]\nimage = "host"\ncommand = {command}\nstop_signal = "KILL"\n'
        f'restart = "{restart}"\n[container.one.backoff]\n{backoff}\n[container.one.network]\ndriver = "none"\n'
    )


def shell(script: str) -> str:
    return f'["sh", "-c", "{script}"]'


def row(pycore: Command) -> dict[str, Any]:
    (found,) = pycore.json("ps", "-a")
    return found  # type: ignore[no-any-return]


def test_failures_are_tried_again_so_many_times(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(shell("echo run; exit 3"), "on-failure:2")))
        happenings.word("die", 3)
        lived = [word for word in happenings.words() if word != "apply"]
        assert lived == ["create", "start", *["die", "restart", "start"] * 2, "die"]
    found = row(pycore)
    assert (found["status"], found["exit_status"], found["restarts"]) == ("stopped", 3, 2)
    assert pycore("logs", "t/one") == "run\n" * 3


def test_success_is_no_failure(pycore: Command) -> None:
    pycore("apply", pycore.write(spec(shell("exit 0"), "on-failure")))
    assert pycore("wait", "one") == "0\n"
    found = row(pycore)
    assert (found["status"], found["restarts"]) == ("stopped", 0)


def test_success_is_followed_by_a_start_where_it_is_always(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("run", "-d", "--name", "one", "--network", "none", "--restart", "always", "host", "true")
        happenings.word("restart", 2)
        assert all(event["exit_status"] == 0 for event in happenings.events if event["what"] == "die")


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_what_a_person_stops_stays_down_until_a_person_starts_it(pycore: Command, policy: str) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(SLEEP, policy)))
        pycore("stop", "one")
        happenings.word("die")
        assert row(pycore)["status"] == "stopped"
        pycore("start", "one")
        os.kill(row(pycore)["pid"], signal.SIGKILL)
        happenings.word("start", 3)
        assert happenings.words().count("restart") == 1
    assert row(pycore)["restarts"] == 1


def test_kill_by_a_person_is_no_stop(pycore: Command) -> None:
    """As in Docker: who kills a container whose policy is always sees it again."""
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(SLEEP, "always")))
        os.kill(row(pycore)["pid"], signal.SIGKILL)
        happenings.word("restart")


def test_one_that_waits_for_its_restart_can_be_stopped_and_started(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(shell("exit 1"), "always", SLOW)))
        happenings.word("die")
        assert "restarting" in pycore("ps", "-a").lower()
        pycore("start", "one")
        happenings.word("die", 2)
        pycore("stop", "one")
        assert "restarting" not in pycore("ps", "-a").lower()
        assert row(pycore)["status"] == "stopped"
        assert "restart" not in happenings.words()


def test_one_that_waits_for_its_restart_waits_on_after_an_apply_that_failed(pycore: Command) -> None:
    slow = 'delay_min = "2s"'
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(shell("exit 3"), "always", slow)))
        happenings.word("die", 1)
        broken = pycore.write(spec('["/no/such/program"]', "always", slow), "broken.toml")
        assert "/no/such/program" in pycore.fails("apply", broken, status=127)
        happenings.word("restart", 1)


def test_one_that_waits_for_its_restart_can_be_removed(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        file = pycore.write(spec(shell("exit 1"), "always", SLOW))
        pycore("apply", file)
        happenings.word("die")
        pycore("down", file)
        assert pycore.json("ps", "-a") == []


def test_restart_that_is_due_comes_after_the_supervisor_was_killed(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(SLEEP, "always", 'delay_min = "400ms"')))
        os.kill(row(pycore)["pid"], signal.SIGKILL)
        happenings.word("die")
    supervisor = os.pidfd_open(pycore.supervisor())
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
    assert wait_readable(supervisor, 20)
    os.close(supervisor)
    with Happenings(pycore) as happenings:
        happenings.word("restart")
        happenings.word("start", 2)
    assert row(pycore)["status"] == "running"


def test_take_over_of_one_that_runs_is_told(pycore: Command) -> None:
    pycore("apply", pycore.write(spec(SLEEP, "no")))
    supervisor = os.pidfd_open(pycore.supervisor())
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
    assert wait_readable(supervisor, 20)
    os.close(supervisor)
    with Happenings(pycore) as happenings:
        assert happenings.word("take-over")["containers"] == 1
        assert "die" not in happenings.words()


def test_policy_changes_while_the_program_runs(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(SLEEP, "no")))
        pid = row(pycore)["pid"]
        changed = pycore.write(spec(SLEEP, "always"))
        assert '~ update t/one\n    because restart: "no" -> "always"' in pycore("plan", changed)
        pycore("apply", changed)
        assert row(pycore)["pid"] == pid
        os.kill(pid, signal.SIGKILL)
        happenings.word("restart")


def test_one_whose_start_fails_is_tried_again(pycore: Command) -> None:
    """The directory that it needs is gone when its policy starts it again, and comes back."""
    place = Path(pycore.directory, "data-of-one")
    place.mkdir()
    volume = f'[container.one.storage]\nvolumes = ["{place}:/mnt"]\n'
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(SLEEP, "always") + volume))
        place.rmdir()
        os.kill(row(pycore)["pid"], signal.SIGKILL)
        happenings.word("die", 3)
        place.mkdir()
        happenings.word("start", 2)
    assert row(pycore)["status"] == "running"


def test_what_is_no_policy_is_said_with_its_place(pycore: Command) -> None:
    error = pycore.fails("check", pycore.write(spec(SLEEP, "sometimes")), status=2)
    assert 'app.toml:6:11: restart: must be "no", "always"' in error
