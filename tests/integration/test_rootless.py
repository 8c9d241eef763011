"""Containers of a normal user: one with ids for their users, and one with none, as it is on many hosts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.image import make_root
from support.nobody import FIRST, USER, Nobody, somebody
from support.person import until

pytestmark = [pytest.mark.root, pytest.mark.needs("uidmap")]


@pytest.fixture(params=["with ids", "alone"])
def user(request: pytest.FixtureRequest) -> Iterator[Nobody]:
    with somebody(ranges=request.param == "with ids") as found:
        yield found


@pytest.fixture
def rich() -> Iterator[Nobody]:
    with somebody(ranges=True) as found:
        yield found


@pytest.fixture
def image(rich: Nobody) -> Path:
    return image_of(rich)


def image_of(user: Nobody) -> Path:
    """A directory of the user's own, with programs in it."""
    root = user.home / "image"
    make_root(root, ["sh", "cat", "id", "sleep", "ls", "rm", "mkdir"])
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nwww:x:33:33::/:/bin/sh\n")
    (root / "d").mkdir()
    (root / "d/below").write_text("below\n")
    for each in (root, *root.rglob("*")):
        os.chown(each, USER, USER, follow_symlinks=False)
    return root


def supervisor_of(user: Nobody) -> int:
    pid = user.command.supervisor()
    assert pid
    return pid


def kill_supervisor(user: Nobody) -> None:
    pidfd = os.pidfd_open(supervisor_of(user))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    until(lambda: not user.command.supervisor())


def test_a_container_without_a_network(user: Nobody) -> None:
    out = user.command("run", "--rm", "--network", "none", "host", "sh", "-c", "id -u; ls /sys/class/net; hostname")
    number, device, _ = out.splitlines()
    assert (number, device) == ("0", "lo")


def test_a_container_on_the_hosts_network(user: Nobody) -> None:
    devices = user.command("run", "--rm", "--network", "host", "host", "ls", "/sys/class/net").split()
    assert devices == sorted(os.listdir("/sys/class/net"))


@pytest.mark.parametrize("driver", ["overlayfs", "vfs"])
def test_a_directory_as_image(user: Nobody, driver: str) -> None:
    image = image_of(user)
    script = "rm -r /d; mkdir /d; echo new > /d/new; ls /d; echo x > /etc/motd; cat /etc/motd"
    words = ("--network", "none", "--storage", driver, str(image), "sh", "-c", script)
    assert user.command("run", "--name", "c", *words).split() == ["new", "x"]
    assert (image / "d/below").exists()
    assert "D /d/below" in user.command("diff", "c") or "C /d" in user.command("diff", "c")


def test_who_a_container_is_on_the_host(rich: Nobody, image: Path) -> None:
    rich.command("run", "-d", "--name", "c", "--network", "none", "-u", "www", str(image), "sleep", "1000")
    pid = rich.command.json("inspect", "c")["pid"]
    assert os.stat(f"/proc/{pid}").st_uid in (FIRST + 32, 0)  # 0 where it is not dumpable
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    assert f"Uid:\t{FIRST + 32}\t" in status
    assert rich.command("exec", "c", "id", "-u") == "33\n"


def test_nobody_but_root_where_there_is_one_id(tmp_path: Path) -> None:
    with somebody(ranges=False) as alone:
        image = image_of(alone)
        words = alone.command.fails("run", "--network", "none", "-u", "www", str(image), "id", status=125)
        assert "an id is not one of the container's user namespace" in words
        assert "ids for users in containers" in alone.command.run("doctor").out


def test_an_app_comes_runs_and_goes(user: Nobody) -> None:
    spec = user.command.write(
        'name = "app"\n'
        '[container.one]\nimage = "host"\nnetwork = "none"\ncommand = ["sh", "-c", "echo said; exec sleep 1000"]\n'
        '[container.two]\nimage = "host"\nnetwork = "host"\ncommand = ["sleep", "1000"]\n'
    )
    user.command("apply", spec)
    states = {row["container"]: row["status"] for row in user.command.json("ps")}
    assert states == {"app/one": "running", "app/two": "running"}
    assert user.command("logs", "app/one") == "said\n"
    assert user.command("exec", "app/one", "id", "-u") == "0\n"
    assert user.command("plan", spec) == "nothing to do\n"
    user.command("down", "-t", "0", "app")
    assert user.command.json("ps", "-a") == []
    assert not list((user.command.run_dir / "containers").iterdir())


def test_the_next_supervisor_goes_to_where_the_containers_are(rich: Nobody, image: Path) -> None:
    rich.command("run", "-d", "--name", "c", "--network", "none", "-u", "www", str(image), "sleep", "1000")
    kill_supervisor(rich)
    assert rich.command("exec", "-u", "0", "c", "id", "-u") == "0\n"
    rich.command("stop", "-t", "0", "c")
    assert [row["status"] for row in rich.command.json("ps", "-a")] == ["stopped"]


def test_an_init_and_a_health_check(rich: Nobody) -> None:
    spec = rich.command.write(
        'name = "app"\n[container.c]\nimage = "host"\nnetwork = "none"\ninit = true\ngoal = "healthy"\n'
        'command = ["/usr/bin/python3", "-m", "http.server", "8080"]\n'
        '[container.c.health]\nhttp = ":8080/"\n'
    )
    rich.command("apply", spec)
    assert "healthy" in rich.command("ps")


def test_ids_of_one_s_own_are_no_normal_users(rich: Nobody) -> None:
    words = rich.command.fails("run", "--network", "none", "--userns", "auto", "host", "true", status=125)
    assert "not among those that this user has" in words


def test_a_bridge_is_beyond_a_normal_user(rich: Nobody) -> None:
    words = rich.command.fails("run", "--network", "bridge", "host", "true", status=125)
    assert 'network = "pasta"' in words


def test_directories_of_ones_own(rich: Nobody) -> None:
    runtime = rich.home / "runtime"
    runtime.mkdir()
    os.chown(runtime, USER, USER)
    own = {"PYCORE_RUN_DIR": "", "PYCORE_DATA_DIR": "", "XDG_RUNTIME_DIR": str(runtime), "XDG_DATA_HOME": ""}
    rich.command.environment.update(own | {"PYCORE_LINGER": "0"})
    rich.command("run", "--rm", "--network", "none", "host", "true")
    assert (runtime / "pycore").is_dir()
    assert (rich.home / ".local/share/pycore").is_dir()


def test_a_run_dir_of_somebody_else(rich: Nobody, tmp_path: Path) -> None:
    other = rich.home.parent / "other"
    other.mkdir(mode=0o777)
    words = rich.command.fails("--run-dir", str(other), "run", "host", "true", status=125)
    assert "is another user's" in words
