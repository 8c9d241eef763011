"""What another version of pycore has left: its records, its journals, its files in the place of ours while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.booting import boot, end, since
from support.command import Command
from support.versions import command_of, copy_of

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

SPEC = """
name = "shop"
[container.web]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
network.driver = "none"
[container.other]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
network.driver = "none"
"""

Fields = dict[str, Any]


def rewrite(pycore: Command, name: str, change: Callable[[Fields], object]) -> Fields:
    """Change what is written of a container, while no supervisor is there; what was written."""
    (identity,) = (row["id"] for row in pycore.json("ps", "-a") if row["container"] == name)
    end(pycore.supervisor())
    file = pycore.run_dir / "containers" / identity / "state.jsonl"
    fields: Fields = {}
    for line in file.read_text().splitlines():
        fields |= json.loads(line)
    change(fields)
    file.write_text(json.dumps(fields) + "\n")
    return fields


def made_otherwise(fields: Fields) -> None:
    """As another version might have it: an operation with another field, one in another place, one of another name."""
    first, second, *rest = fields["prepared"]
    fields["prepared"] = [
        {**first, "flavour": "strong"},
        {**second, "op": second["op"].replace(":", "_of_old:")},
        *({**each, "op": each["op"] + "OfOld"} for each in rest),
    ]
    fields["attached"] = [{**first, "op": "pycore.moved.long.ago:Thing"}]


def made_by_a_plugin_that_is_gone(fields: Fields) -> None:
    fields["prepared"] = [*fields["prepared"], {"op": "pycore_no_such_plugin.ops:Thing", "path": "/x"}]


def states(pycore: Command) -> dict[str, str]:
    return {row["container"]: row["status"] for row in pycore.json("ps", "-a")}


@pytest.mark.parametrize("verb", ["down", "rm"])
def test_what_another_version_made_can_be_taken_down(pycore: Command, verb: str) -> None:
    pycore("apply", pycore.write(SPEC))
    rewrite(pycore, "shop/web", made_otherwise)
    assert states(pycore) == {"shop/web": "running", "shop/other": "running"}
    assert pycore("exec", "web", "echo", "hi") == "hi\n"
    pycore(*({"down": ("down", "shop"), "rm": ("rm", "-f", "web")}[verb]))
    assert "shop/web" not in states(pycore)
    pycore("doctor", "--repair")
    assert json.loads(pycore.run("doctor", "--json").out)["findings"] == []
    pycore("apply", str(pycore.directory / "app.toml"))
    assert states(pycore) == {"shop/web": "running", "shop/other": "running"}


def test_what_another_version_made_runs_on_stops_and_starts(pycore: Command) -> None:
    pycore("apply", pycore.write(SPEC))
    rewrite(pycore, "shop/web", made_otherwise)
    pycore("restart", "web")
    pycore("stop", "web")
    pycore("start", "web")
    assert states(pycore)["shop/web"] == "running"
    changed = pycore.write(SPEC.replace('"1000"', '"2000"'))
    told = pycore.fails("apply", changed)
    assert "another version" in told
    assert "pycore rm -f shop/web" in told
    pycore("rm", "-f", "shop/web")
    pycore("apply", changed)


def test_what_ended_meanwhile_is_put_in_order(pycore: Command) -> None:
    pycore("apply", pycore.write(SPEC))
    fields = rewrite(pycore, "shop/web", made_otherwise)
    end(fields["pid"])
    assert states(pycore) == {"shop/web": "stopped", "shop/other": "running"}
    pycore("down", "shop")
    pycore("doctor", "--repair")


@pytest.mark.parametrize("status", ["running", "removing", "creating"])
def test_a_plugin_that_is_gone_holds_nobody_else_up(pycore: Command, status: str) -> None:
    def change(fields: Fields) -> None:
        made_by_a_plugin_that_is_gone(fields)
        fields["status"] = status

    pycore("apply", pycore.write(SPEC))
    rewrite(pycore, "shop/web", change)
    assert pycore("exec", "other", "echo", "hi") == "hi\n"
    assert pycore("run", "--rm", "--network", "none", "host", "echo", "hi") == "hi\n"
    told = pycore.fails("down", "shop")
    assert "pycore_no_such_plugin" in told
    assert "install the plugin again" in told
    assert "shop/other" not in states(pycore), "the others are gone all the same"
    rewrite(pycore, "shop/web", lambda fields: fields.update(prepared=fields["prepared"][:-1]))
    pycore("down", "shop")
    assert states(pycore) == {}


def test_a_boot_brings_back_what_another_version_made(pycore: Command) -> None:
    pycore("apply", pycore.write(SPEC))
    rewrite(pycore, "shop/web", made_otherwise)
    booted = boot(pycore, keep_run_dir=True)
    pycore("ps")
    since(booted, pycore, {"what": "start", "container": "web"})
    assert pycore("exec", "web", "echo", "hi") == "hi\n"


def test_a_container_whose_record_does_not_say_what_it_is_made_of(pycore: Command) -> None:
    pycore("apply", pycore.write(SPEC))
    rewrite(pycore, "shop/web", lambda fields: fields.pop("image"))
    pycore("restart", "web")
    assert states(pycore)["shop/web"] == "running"
    assert pycore("apply", str(pycore.directory / "app.toml")) == "nothing to do\n"


def test_a_supervisor_whose_files_were_replaced_makes_way(pycore: Command, tmp_path: Path) -> None:
    """As by ``pip install -U``: modules that it has not loaded yet are others by now, or are gone."""
    tree = copy_of(tmp_path / "older", "0.0.1")
    older = command_of(tree, pycore)
    older("run", "-d", "--name", "one", "--network", "none", "host", "sleep", "1000")
    old = older.supervisor()
    before = [row["pid"] for row in older.json("ps")]
    for file in [*tree.rglob("*.py"), *tree.rglob("*.pyc")]:
        file.unlink()
    assert [row["pid"] for row in pycore.json("ps")] == before
    assert pycore("exec", "one", "echo", "hi") == "hi\n"
    assert pycore.supervisor() not in (0, old)
    pycore("restart", "-t", "0", "one")
    pycore("down", "one")
