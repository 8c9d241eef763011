"""Health checks on real containers: each way to ask, and what follows."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from support.command import Command, wait_readable
from support.happenings import Happenings

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

READY = "touch /run/ready; exec sleep 1000"
TCP = "import socket, time; s = socket.create_server(('127.0.0.1', 8080)); time.sleep(1000)"
UNIX = "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/run/x.sock'); s.listen(); time.sleep(1000)"


def spec(health: str, command: list[str] | None = None, more: str = "") -> str:
    return (
        f'name = "t"\n[container.one]\nimage = "host"\ncommand = {command or ["sh", "-c", READY]}\n'
        f'stop_signal = "KILL"\n{more}\n[container.one.network]\ndriver = "none"\n'
        f"[container.one.health]\n{health}\n"
    )


def often(health: str, retries: int = 1) -> str:
    return f'{health}\ninterval = "50ms"\nretries = {retries}'


def row(pycore: Command) -> dict[str, Any]:
    (found,) = pycore.json("ps", "-a")
    return found  # type: ignore[no-any-return]


def inside(pycore: Command, path: str) -> Path:
    """A path in the container, as the host sees it."""
    return Path(f"/proc/{row(pycore)['pid']}/root{path}")


@pytest.mark.parametrize(
    ("health", "command"),
    [
        ('command = ["test", "-e", "/run/ready"]', ["sh", "-c", READY]),
        ('shell = "test -e /run/ready || exit 1"', ["sh", "-c", READY]),
        ('file = "/run/ready"', ["sh", "-c", READY]),
        ('tcp = ":8080"', ["python3", "-c", TCP]),
        ('http = ":8080/"', ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8080"]),
        ('unix = "/run/x.sock"', ["python3", "-c", UNIX]),
    ],
    ids=["command", "shell", "file", "tcp", "http", "unix"],
)
def test_each_way_to_ask(pycore: Command, health: str, command: list[str]) -> None:
    """`apply` waits until it is healthy; nothing of the host answers in its place."""
    pycore("apply", pycore.write(spec(health, command, 'goal = "healthy"')))
    assert row(pycore)["health"] == "healthy"
    assert "healthy" in pycore("ps")
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection(("127.0.0.1", 8080), 5).close()


@pytest.mark.parametrize("userns", ["host", "auto"])
def test_asked_with_powers_of_its_own(pycore: Command, userns: str) -> None:
    """A container with its own users, none of whom may do anything, is asked all the same."""
    more = 'goal = "healthy"\n[container.one.isolation]\nuser = "1000"\ncap_drop = ["ALL"]\n' + f'userns = "{userns}"'
    pycore("apply", pycore.write(spec('tcp = ":8080"', ["python3", "-c", TCP], more)))


def test_answers_are_shown(pycore: Command) -> None:
    pycore("apply", pycore.write(spec(often('shell = "echo all is well"'), more='goal = "healthy"')))
    found = pycore.json("inspect", "one")
    assert (found["health"], found["checks"]["status"]) == ("healthy", "healthy")
    last = found["checks"]["log"][-1]
    assert (last["ok"], last["output"]) == (True, "all is well")


def test_unhealthy_is_said_with_what_was_answered(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(often('shell = "test -e /run/ready || { echo it is gone; exit 4; }"'))))
        happenings.health("healthy")
        inside(pycore, "/run/ready").unlink()
        event = happenings.health("unhealthy")
    assert event["output"] == "/bin/sh ended with status 4: it is gone"
    found = row(pycore)
    assert (found["status"], found["health"], found["restarts"]) == ("running", "unhealthy", 0)


def test_program_that_never_ends_is_killed_at_its_time(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        check = 'command = ["sh", "-c", "echo hanging; exec sleep 987"]\ntimeout = "100ms"'
        pycore("apply", pycore.write(spec(often(check))))
        assert happenings.health("unhealthy")["output"] == "no answer within 0.1 s"
    pid = row(pycore)["pid"]
    group = Path(f"/proc/{pid}/ns/pid").readlink()
    pycore("stop", "one")
    assert not [
        process
        for process in Path("/proc").glob("[0-9]*/ns/pid")
        if os.path.lexists(process) and _leads(process, group)
    ]


def _leads(link: Path, group: Path) -> bool:
    try:
        return link.readlink() == group
    except OSError:
        return False


def test_program_that_never_stops_talking_is_killed_at_its_time(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(often('command = ["yes"]\ntimeout = "100ms"'))))
        assert happenings.health("unhealthy")["output"] == "no answer within 0.1 s"


def test_restart_when_unhealthy_whatever_the_policy(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(often('file = "/run/ready"\non_unhealthy = "restart"'))))
        happenings.health("healthy")
        inside(pycore, "/run/ready").unlink()
        happenings.word("restart")
        happenings.health("healthy", 2)
        [die] = [event for event in happenings.events if event["what"] == "die"]
        assert die["reason"] == "it was unhealthy"
    found = row(pycore)
    assert (found["status"], found["restarts"]) == ("running", 1)


def test_stop_when_unhealthy(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        check = often('file = "/run/ready"\non_unhealthy = "stop"')
        pycore("apply", pycore.write(spec(check, more='restart = "always"')))
        happenings.health("healthy")
        inside(pycore, "/run/ready").unlink()
        happenings.word("die")
        assert row(pycore)["status"] == "stopped"
        assert "restart" not in happenings.words()


def test_start_period_forgives(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        check = often('file = "/run/later"') + '\nstart_period = "1h"\nstart_interval = "20ms"'
        pycore("apply", pycore.write(spec(check, ["sleep", "1000"])))
        assert row(pycore)["health"] == "starting"
        inside(pycore, "/run/later").touch()
        happenings.health("healthy")
        inside(pycore, "/run/later").unlink()
        happenings.health("unhealthy")


def test_check_changes_while_the_program_runs(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(often('file = "/run/ready"'))))
        happenings.health("healthy")
        pid = row(pycore)["pid"]
        pycore("apply", pycore.write(spec(often('file = "/run/other"'))))
        happenings.health("unhealthy")
        assert row(pycore)["pid"] == pid
        pycore("apply", pycore.write(spec("").replace("[container.one.health]", "")))
        found = row(pycore)
        assert (found["pid"], found["health"] or "") == (pid, "")


def test_take_over_goes_on_asking(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(often('file = "/run/ready"'))))
        happenings.health("healthy")
    supervisor = os.pidfd_open(pycore.supervisor())
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
    assert wait_readable(supervisor, 20)
    os.close(supervisor)
    assert row(pycore)["health"] == "healthy"
    with Happenings(pycore) as happenings:
        inside(pycore, "/run/ready").unlink()
        happenings.health("unhealthy")
        assert [event["health"] for event in happenings.events if event["what"] == "health"] == ["healthy", "unhealthy"]


def test_links_are_resolved_inside(pycore: Command) -> None:
    """A container that plants a link to a socket of the host must not make us connect to it."""
    path = pycore.directory / "host.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.setblocking(False)
        with Happenings(pycore) as happenings:
            link = f"ln -s {path} /run/x.sock; exec sleep 1000"
            pycore("apply", pycore.write(spec(often('unix = "/run/x.sock"'), ["sh", "-c", link])))
            happenings.health("unhealthy")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_run_has_dockers_flags(pycore: Command) -> None:
    with Happenings(pycore) as happenings:
        pycore(
            "run", "-d", "--network", "none", "--health-cmd", "test -e /run/ready", "--health-interval", "50ms",
            "--health-timeout", "5s", "--health-retries", "2", "--health-start-period", "0s",
            "--health-start-interval", "20ms", "host", "sh", "-c", READY,
        )  # fmt: skip
        happenings.health("healthy")


def test_a_check_is_turned_off_and_on_while_the_program_runs(pycore: Command) -> None:
    check = 'file = "/run/never"\ninterval = "20ms"\nretries = 1'
    with Happenings(pycore) as happenings:
        pycore("apply", pycore.write(spec(f"{check}\nenabled = false")))
        (row,) = pycore.json("ps")
        assert row["health"] is None
        pycore("apply", pycore.write(spec(check)))
        happenings.health("unhealthy")
        pycore("apply", pycore.write(spec(f"{check}\nenabled = false")))
        (after,) = pycore.json("ps")
        assert (after["pid"], after["health"]) == (row["pid"], None)


def test_run_has_dockers_flag_for_no_check(pycore: Command) -> None:
    pycore("run", "-d", "--network", "none", "--no-healthcheck", "--health-cmd", "false", "host", "sleep", "1000")
    (row,) = pycore.json("ps")
    assert row["health"] is None


def test_what_is_no_check_is_said_with_its_place(pycore: Command) -> None:
    error = pycore.fails("check", pycore.write(spec('http = ":80"\ntcp = ":80"')), status=2)
    assert "http is there already: a container is asked in one way" in error
