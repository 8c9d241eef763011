"""Several containers of one kind: made, numbered, made more and fewer, and stopped one by one."""

from __future__ import annotations

import pytest
from support.command import Command

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]


def spec(replicas: int) -> str:
    return f"""
name = "shop"
[container.web]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
replicas = {replicas}
network.driver = "none"
"""


def running(pycore: Command) -> dict[str, int]:
    return {row["container"].removeprefix("shop/"): row["pid"] for row in pycore.json("ps")}


def test_replicas_are_numbered_and_those_that_stay_are_left_alone(pycore: Command) -> None:
    pycore("apply", pycore.write(spec(3)))
    three = running(pycore)
    assert sorted(three) == ["web-1", "web-2", "web-3"]
    pycore("apply", pycore.write(spec(5)))
    five = running(pycore)
    assert sorted(five) == [f"web-{number}" for number in range(1, 6)]
    assert three.items() <= five.items()
    pycore("apply", pycore.write(spec(1)))
    assert running(pycore) == {"web-1": three["web-1"]}


def test_a_replica_that_a_person_stopped_is_started_by_the_next_apply(pycore: Command) -> None:
    file = pycore.write(spec(2))
    pycore("apply", file)
    before = running(pycore)
    pycore("stop", "shop/web-2")
    assert sorted(running(pycore)) == ["web-1"]
    pycore("apply", file)
    after = running(pycore)
    assert sorted(after) == ["web-1", "web-2"]
    assert after["web-1"] == before["web-1"]
