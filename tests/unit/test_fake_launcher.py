"""The launcher on the kernel in memory does as the real one does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from pycore.errors import StartError
from pycore.launch.launcher import Launcher, Stdio
from pycore.launch.request import Request
from pycore.testing.fake import FakeKernel
from pycore.testing.launcher import FakeSpawner

STDIO = Stdio(0, 1, 2)


class World:
    def __init__(self) -> None:
        self.spawner = FakeSpawner(FakeKernel())
        self.ends: list[tuple[str, int | None]] = []

    def connect(self) -> Launcher:
        return self.spawner.connect(lambda identity, status, _: self.ends.append((identity, status)))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for process in [*world.spawner.running.values(), *world.spawner.more.values()]:
        os.close(process.pidfd)


def request(identity: str, **more: str) -> Request:
    return Request(identity, f"t/{identity}", (), ("program",), {}, **more)  # type: ignore[arg-type]


def test_one_more_process_goes_with_its_container(world: World) -> None:
    launcher = world.connect()
    first = launcher.launch(request("a"), STDIO)
    first.mapped()
    first.go()
    more = launcher.execute(request("a.1"), first.pidfd, STDIO)
    more.entered()
    more.go()
    assert len(world.spawner.kernel.processes) == 2
    launcher.kill("a", first.pidfd, signal.SIGKILL)
    assert world.ends == [("a.1", -9), ("a", -9)]
    assert not world.spawner.kernel.processes
    with pytest.raises(StartError, match=r"t/a\.2: the container has just ended"):
        launcher.execute(request("a.2"), first.pidfd, STDIO)
    os.close(first.pidfd)
    os.close(more.pidfd)


def test_one_more_process_makes_no_directory(world: World) -> None:
    launcher = world.connect()
    first = launcher.launch(request("a"), STDIO)
    first.mapped()
    first.go()
    more = launcher.execute(request("a.1", working_dir="/nowhere"), first.pidfd, STDIO)
    with pytest.raises(StartError, match="working directory /nowhere"):
        more.entered()
    assert more.abandon()
    assert world.ends == [("a.1", -9)]
    os.close(more.pidfd)


def test_who_waits_to_be_started_is_there_for_the_next_engine_and_who_does_not_ends(world: World) -> None:
    launcher = world.connect()
    held = launcher.launch(request("held"), STDIO, hold=True)
    free = launcher.launch(request("free"), STDIO)
    for starting in (held, free):
        starting.mapped()
        starting.entered()
        os.close(starting.pidfd)
    launcher.close()
    launcher = world.connect()
    found = {each.id: each for each in launcher.adopt()}
    assert world.ends == []
    assert (found["free"].pid, found["free"].status) == (0, 125)
    starting = found["held"].starting
    assert starting
    starting.go()
    assert world.spawner.running["held"].executed


def test_an_end_that_no_engine_heard_of_is_told_to_the_next(world: World) -> None:
    launcher = world.connect()
    first = launcher.launch(request("a"), STDIO)
    first.mapped()
    first.go()
    launcher.close()
    world.spawner.end("a", 4)
    found = {each.id: each for each in world.connect().adopt([("a", first.pid, 1), ("never", 5, 1)])}
    assert (found["a"].pid, found["a"].status) == (0, 4)
    assert (found["never"].pid, found["never"].status) == (0, None)
    os.close(first.pidfd)


def test_what_has_been_killed_cannot_go_on(world: World) -> None:
    launcher = world.connect()
    first = launcher.launch(request("a"), STDIO)
    first.mapped()
    launcher.kill("a", first.pidfd, signal.SIGKILL)
    with pytest.raises(StartError, match="ended before it became the program"):
        first.go()
    os.close(first.pidfd)
