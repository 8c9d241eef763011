"""The command as a person uses it: apply, look, change, take down."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.command import Command, wait_readable

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

QUIET = '[container.{name}.network]\ndriver = "none"\n'


def spec(name: str = "one", command: str = '["sleep", "1000"]', more: str = "", app: str = "t") -> str:
    container = f'[container.{name}]\nimage = "host"\ncommand = {command}\nstop_signal = "KILL"\n{more}'
    return f'name = "{app}"\n{container}{QUIET.format(name=name)}'


def pids(pycore: Command) -> dict[str, int]:
    return {row["container"]: row["pid"] for row in pycore.json("ps")}


def test_apply_runs_what_the_file_says_and_logs_keep_its_output(pycore: Command) -> None:
    file = pycore.write(spec(command='["sh", "-c", "echo out; echo err >&2; exit 3"]'))
    assert "t/one created" in pycore("apply", file)
    assert pycore("wait", "one") == "3\n"
    logs = pycore.run("logs", "t/one")
    assert (logs.out, logs.err) == ("out\n", "err\n")
    (row,) = pycore.json("ps", "-a")
    assert (row["container"], row["status"], row["exit_status"]) == ("t/one", "stopped", 3)
    assert "t/one removed" in pycore("down", file)
    assert pycore.json("ps", "-a") == []


def test_apply_twice_changes_nothing(pycore: Command) -> None:
    file = pycore.write(spec())
    pycore("apply", file)
    before = pids(pycore)
    assert pycore("plan", file) == "nothing to do\n"
    assert pycore("apply", file) == "nothing to do\n"
    assert pids(pycore) == before


def test_only_what_changed_is_touched(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a") + spec("b").partition("\n")[2]))
    before = pids(pycore)
    changed = pycore.write(spec("a", '["sleep", "2000"]') + spec("b").partition("\n")[2])
    plan = pycore("plan", changed)
    assert '~ restart t/a\n    because command: ["sleep", "1000"] -> ["sleep", "2000"]\n' in plan
    assert "1 container unchanged" in plan
    pycore("apply", changed)
    after = pids(pycore)
    assert after["t/b"] == before["t/b"]
    assert after["t/a"] != before["t/a"]
    assert Path(f"/proc/{after['t/a']}/cmdline").read_bytes() == b"sleep\x002000\x00"


def test_what_left_the_file_is_removed(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a") + spec("b").partition("\n")[2]))
    output = pycore("apply", pycore.write(spec("a")))
    assert "t/b removed" in output
    assert list(pids(pycore)) == ["t/a"]


def test_a_live_change_keeps_the_process(pycore: Command) -> None:
    limit = "[container.one.resources]\npids = {}\n"
    pycore("apply", pycore.write(spec() + limit.format(100)))
    (row,) = pycore.json("ps")
    group = next(path for path in row["cgroups"] if "pids" in path or "unified" in path or path.count("/") < 6)
    changed = pycore.write(spec() + limit.format(50))
    assert "~ update t/one" in pycore("plan", changed)
    pycore("apply", changed)
    assert pids(pycore)["t/one"] == row["pid"]
    assert Path(group, "pids.max").read_text().strip() == "50"


def test_a_failed_apply_puts_back_what_was_there(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("a") + spec("b").partition("\n")[2]))
    before = pycore.json("ps")
    broken = pycore.write(spec("b", '["sleep", "3000"]') + spec("c", '["nonesuch"]').partition("\n")[2])
    error = pycore.fails("apply", broken, status=127)
    assert "t/c: nonesuch: not found in the container" in error
    after = pycore.json("ps")
    assert [row["container"] for row in after] == ["t/a", "t/b"]
    assert [row["command"] for row in after] == [row["command"] for row in before]
    assert pycore("plan", pycore.write(spec("a") + spec("b").partition("\n")[2])) == "nothing to do\n"


def test_plan_writes_nothing(pycore: Command) -> None:
    from support import leaks

    def seen() -> tuple[set[str], list[Path]]:
        return leaks.ours(leaks.snapshot(), pycore.run_dir.parent), sorted(pycore.directory.rglob("*"))

    before = seen()
    file = pycore.write(spec().replace('driver = "none"', 'driver = "bridge"\nports = ["127.0.0.1:18231:80"]'))
    text = pycore("plan", "-v", file)
    assert "mount overlay" in text
    assert "link veth" in text
    os.unlink(file)
    assert seen() == before


def test_apply_does_what_plan_has_shown(pycore: Command) -> None:
    file = pycore.write(spec())
    planned = pycore.json("plan", file)
    applied = pycore.json("apply", file)
    assert applied == planned


def test_time_tells_what_each_operation_took(pycore: Command) -> None:
    output = pycore("apply", "--time", pycore.write(spec()))
    for words in ("cgroup", "clone as pid", "enter, confine, exec", "total"):
        assert words in output


def test_run_passes_output_and_exit_status_on(pycore: Command) -> None:
    done = pycore.run("run", "--rm", "--network", "none", "host", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.status, done.out, done.err) == (7, "out\n", "err\n")
    assert pycore.json("ps", "-a") == []


def test_run_passes_standard_input_on_when_asked(pycore: Command) -> None:
    file = pycore.directory / "input"
    file.write_text("through the client")
    with file.open() as stdin:
        assert pycore("run", "--rm", "-i", "--network", "none", "host", "cat", stdin=stdin) == "through the client"
    with file.open() as stdin:
        assert pycore("run", "--rm", "--network", "none", "host", "cat", stdin=stdin) == ""


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("nonesuch",), 127, "not found in the container"),
        (("/etc/passwd",), 126, "cannot be executed: Permission denied"),
        (("/tmp",), 126, "cannot be executed"),
        (("false",), 1, ""),
    ],
)
def test_run_ends_as_dockers_run_does(pycore: Command, command: tuple[str, ...], status: int, words: str) -> None:
    done = pycore.run("run", "--rm", "--network", "none", "host", *command)
    assert done.status == status
    assert words in done.err
    assert pycore.json("ps", "-a") == []


def test_run_in_the_background(pycore: Command) -> None:
    assert (
        pycore("run", "-d", "--name", "bg", "--network", "none", "host", "sh", "-c", "echo hi; sleep 1000") == "bg/bg\n"
    )
    assert pycore.fails("run", "--name", "bg", "host", "true", status=125).startswith("pycore: the name bg is taken")
    follower = pycore.popen("logs", "-f", "bg")
    assert follower.stdout
    assert follower.stdout.readline() == "hi\n"
    pycore("kill", "bg")
    assert follower.wait(20) == 0
    follower.communicate()
    assert pycore("wait", "bg") == "137\n"
    pycore("rm", "bg")
    assert pycore.json("ps", "-a") == []


def test_signals_reach_the_program(pycore: Command) -> None:
    script = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    process = pycore.popen("run", "--rm", "--network", "none", "host", "sh", "-c", script)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (9, "got it\n")


def test_stop_and_start(pycore: Command) -> None:
    command = '["sh", "-c", "date +%s%N >> /starts; exec sleep 1000"]'
    pycore("apply", pycore.write(spec(command=command)))
    assert pycore("stop", "one") == "t/one\n"
    assert pycore.json("ps") == []
    pycore("start", "one")
    (row,) = pycore.json("ps")
    starts = Path(f"/proc/{row['pid']}/root/starts").read_text().splitlines()
    assert len(starts) == 2, "the writable layer is kept over a stop"


def test_stop_kills_when_the_time_is_over(pycore: Command) -> None:
    text = spec(command='["sleep", "1000"]').replace('stop_signal = "KILL"', 'stop_grace_period = "200ms"')
    pycore("apply", pycore.write(text))
    started = time.monotonic()
    pycore("stop", "one")
    assert time.monotonic() - started < 8
    assert pycore("wait", "one") == "137\n"


def test_down_waits_no_longer_than_it_is_told(pycore: Command) -> None:
    """The program takes no notice of SIGTERM, and has an hour."""
    text = spec(command='["sleep", "1000"]').replace('stop_signal = "KILL"', 'stop_grace_period = "1h"')
    pycore("apply", pycore.write(text))
    assert pycore("down", "-t", "0", "t") == "t/one removed\n"
    assert pycore.json("ps", "-a") == []
    assert "-t" in pycore.fails("down", "-t", "-1", "t", status=2)


def test_names_that_several_apps_have_must_be_said_in_full(pycore: Command) -> None:
    pycore("apply", pycore.write(spec(app="x"), "x.toml"))
    pycore("apply", pycore.write(spec(app="y"), "y.toml"))
    error = pycore.fails("stop", "one")
    assert "x/one, y/one" in error
    pycore("stop", "x/one")
    assert list(pids(pycore)) == ["y/one"]
    assert "no such container: nonesuch" in pycore.fails("logs", "nonesuch")


def test_inspect_tells_all(pycore: Command) -> None:
    pycore("apply", pycore.write(spec()))
    told = json.loads(pycore("inspect", "one"))
    assert told["status"] == "running"
    assert told["spec"]["container"]["one"]["command"] == ["sleep", "1000"]
    assert {"prepare"} <= {operation["phase"] for operation in told["operations"]}


def test_containers_outlive_the_supervisor_and_their_end_is_known(pycore: Command) -> None:
    script = "while [ ! -e /go ]; do sleep 0.05; done; echo last words; exit 5"
    pycore("apply", pycore.write(spec(command=json.dumps(["sh", "-c", script]))))
    pid = pids(pycore)["t/one"]
    supervisor = pycore.supervisor()
    handle = os.pidfd_open(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    assert wait_readable(handle, 10)
    os.close(handle)
    container = os.pidfd_open(pid)
    Path(f"/proc/{pid}/root/go").touch()
    assert wait_readable(container, 10)
    os.close(container)
    assert pycore("wait", "one") == "5\n"
    assert pycore("logs", "one") == "last words\n"


def test_a_running_container_is_taken_over(pycore: Command) -> None:
    pycore("apply", pycore.write(spec()))
    before = pids(pycore)
    supervisor = pycore.supervisor()
    handle = os.pidfd_open(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    assert wait_readable(handle, 10)
    os.close(handle)
    assert pids(pycore) == before
    pycore("stop", "one")
    assert pycore("wait", "one") == "137\n"


def test_the_supervisor_ends_when_it_has_nothing_to_look_after(pycore: Command) -> None:
    pycore.environment["PYCORE_LINGER"] = "0.1"
    pycore("run", "--rm", "--network", "none", "host", "true")
    supervisor = pycore.supervisor()
    if supervisor:
        handle = os.pidfd_open(supervisor)
        assert wait_readable(handle, 20)
        os.close(handle)
    assert pycore("run", "--rm", "--network", "none", "host", "echo", "again") == "again\n"


def test_a_volume_does_not_cover_what_is_mounted_below_it(pycore: Command) -> None:
    (pycore.directory / "etc").mkdir()
    (pycore.directory / "etc" / "hosts").write_text("192.0.2.1 wrong\n")
    out = pycore("run", "--rm", "--network", "none", "--name", "deep", "-v", "./etc:/etc", "host", "cat", "/etc/hosts")
    assert "deep" in out
    assert "wrong" not in out


def test_a_working_directory_is_made(pycore: Command) -> None:
    assert pycore("run", "--rm", "--network", "none", "-w", "/new/place/", "host", "pwd") == "/new/place\n"


def test_a_port_moves_from_one_container_to_another(pycore: Command) -> None:
    def app(first: str, second: str) -> str:
        text = 'name = "move"\n'
        for name, ports in (("a", first), ("b", second)):
            text += f'[container.{name}]\nimage = "host"\ncommand = ["sleep", "1000"]\nstop_signal = "KILL"\n'
            text += f"[container.{name}.network]\nports = [{ports}]\n"
        return pycore.write(text)

    pycore("apply", app('"127.0.0.1:18477:80"', ""))
    before = pids(pycore)
    pycore("apply", app("", '"127.0.0.1:18477:80"'))
    assert {row["container"]: bool(row["ports"]) for row in pycore.json("ps")} == {"move/a": False, "move/b": True}
    assert pids(pycore) == before
    pycore("apply", app('"127.0.0.1:18477:80"', ""))
    assert {row["container"]: bool(row["ports"]) for row in pycore.json("ps")} == {"move/a": True, "move/b": False}
    one, other = '"127.0.0.1:18477:80"', '"127.0.0.1:18478:80"'
    pycore("apply", app(one, other))
    pycore("apply", app(other, one))
    ports = {row["container"]: str(row["ports"]) for row in pycore.json("ps")}
    assert "18478" in ports["move/a"]
    assert "18477" in ports["move/b"]
    assert pids(pycore) == before
