"""After the host has started anew: what was applied comes back by itself, in order, with what it had written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.booting import boot, since
from support.command import Command

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SPEC = """
name = "shop"
[container.web]
image = "host"
command = ["sh", "-c", "echo web >> /runs; exec sleep 1000"]
depends_on = { db = "healthy", task = "completed" }
network.driver = "none"
[container.db]
image = "host"
command = ["sh", "-c", "echo db >> /runs; touch /ready; exec sleep 1000"]
network.driver = "none"
health = { file = "/ready", interval = "1s" }
[container.task]
image = "host"
command = ["sh", "-c", "echo task >> /runs"]
goal = "exit-0"
network.driver = "none"
[container.resting]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
network.driver = "none"
[container.always]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
restart = "always"
network.driver = "none"
"""


def rows(pycore: Command) -> dict[str, Any]:
    return {row["container"]: row for row in pycore.json("ps", "-a")}


def runs(pycore: Command, container: str) -> str:
    """What a container has written in its layer, a line for each time that it ran."""
    return Path(pycore.json("inspect", container)["layer"], "runs").read_text()


@pytest.mark.parametrize("keep_run_dir", [False, True])
def test_an_app_comes_back_in_order_as_it_was_left(pycore: Command, keep_run_dir: bool) -> None:
    pycore("apply", pycore.write(SPEC))
    pycore("stop", "resting", "always")
    before = rows(pycore)
    booted = boot(pycore, keep_run_dir=keep_run_dir)
    pycore("ps")
    seen = since(booted, pycore, {"what": "start", "container": "web"})
    now = rows(pycore)
    place = seen.index(("start", "shop/web"))
    assert ("health", "shop/db") in seen[:place]
    assert ("die", "shop/task") in seen[:place]
    assert {name: row["status"] for name, row in now.items()} == {
        "shop/web": "running", "shop/db": "running", "shop/task": "stopped", "shop/resting": "stopped",
        "shop/always": "running",
    }  # fmt: skip
    assert {name: row["id"] for name, row in now.items()} == {name: row["id"] for name, row in before.items()}
    assert runs(pycore, "shop/web") == "web\nweb\n", "its layer is the one that it had"


def test_one_that_was_renamed_comes_back_with_what_it_had_written(pycore: Command) -> None:
    pycore("run", "-d", "--name", "old", "--network", "none", "host", "sh", "-c", "echo x >> /runs; exec sleep 1000")
    pycore("rename", "old", "new")
    before = rows(pycore)["new/new"]["id"]
    booted = boot(pycore)
    pycore("ps")
    since(booted, pycore, {"what": "start"})
    assert rows(pycore)["new/new"]["id"] == before
    assert runs(pycore, "new") == "x\nx\n"
    assert [path.name for path in (pycore.data_dir / "containers").iterdir()] == [before], "no other layer is there"


def test_what_an_app_is_made_of_is_what_it_was_applied_with(pycore: Command, tmp_path: Path) -> None:
    """A link to an image's directory that leads elsewhere by now changes nothing before the next apply."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").write_text(name)
        for directory in ("bin", "lib", "lib64", "usr", "etc", "proc", "sys", "dev"):
            (tmp_path / name / directory).mkdir()
    link = tmp_path / "image"
    link.symlink_to("one")
    volumes = " ".join(f'"/{each}:/{each}:ro",' for each in ("bin", "lib", "lib64", "usr") if Path("/", each).exists())
    pycore(
        "apply",
        pycore.write(
            'name = "t"\n[container.t]\nimage = "./image"\ncommand = ["sh", "-c", "cat /mark; exec sleep 1000"]\n'
            f'network.driver = "none"\nstorage.volumes = [{volumes}]\n'
        ),
    )
    link.unlink()
    link.symlink_to("two")
    booted = boot(pycore)
    pycore("ps")
    since(booted, pycore, {"what": "start"})
    assert pycore("exec", "t", "cat", "/mark") == "one"
