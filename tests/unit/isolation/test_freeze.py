"""A pause: who is frozen, where, and how all of it is taken back."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.ops import Context, Operation
from pycore.testing.fake import FakeKernel
from pycore_isolation import cgroups
from pycore_isolation.ops.cgroups import Cgroup
from pycore_isolation.ops.freeze import Freeze, FreezeApart

ROOT = "/sys/fs/cgroup"
V2 = f"{ROOT}/pycore/c0ffee"
FREEZER = f"{ROOT}/freezer"
APART = f"{FREEZER}/pycore/c0ffee"


@pytest.fixture
def legacy() -> FakeKernel:
    return FakeKernel(legacy=True)


def host_of(kernel: FakeKernel) -> Host:
    return Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))


def running(kernel: FakeKernel, container: Any, *pids: int) -> None:
    """Make the container's cgroups, and processes in them."""
    host = host_of(kernel)
    for operation in cgroups.pycore_prepare(container, host):
        operation.do(Context(kernel))
    for pid in pids:
        child = kernel.add_process(pid)
        for operation in cgroups.pycore_enter(container, host):
            operation.do(Context(child))


def pause_of(kernel: FakeKernel, container: Any) -> Operation:
    (operation,) = cgroups.pycore_pause(container, host_of(kernel))
    return operation


def test_v2_freezes_the_containers_own_cgroup(make: Any, kernel: FakeKernel) -> None:
    running(kernel, make(), 71)
    before = kernel.snapshot()
    pause = pause_of(kernel, make())
    assert pause == Freeze(V2)
    assert pause.probe(Context(kernel)) is False
    pause.do(Context(kernel))
    assert kernel.read(f"{V2}/cgroup.freeze") == "1"
    assert pause.probe(Context(kernel)) is True
    pause.undo(Context(kernel))
    assert pause.probe(Context(kernel)) is False
    kernel.write(f"{V2}/cgroup.events", "populated 0\nfrozen 0\n")
    assert kernel.snapshot() == before


def test_v2_that_does_not_come_to_stand_still_is_an_error(
    make: Any, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(kernel, make(), 71)
    monkeypatch.setattr(kernel, "write", lambda path, text: None)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        pause_of(kernel, make()).do(Context(kernel))
    assert caught.value.errno == errno.ETIMEDOUT


def test_v1_moves_all_its_processes_into_a_frozen_cgroup_and_back(make: Any, legacy: FakeKernel) -> None:
    running(legacy, make(), 71, 72)
    before = legacy.snapshot()
    pause = pause_of(legacy, make())
    assert pause == FreezeApart(FREEZER, "pycore", "c0ffee", f"{ROOT}/cpu/pycore/c0ffee/cgroup.procs", FREEZER, False)
    pause.do(Context(legacy))
    assert legacy.read(f"{APART}/cgroup.procs").split() == ["71", "72"]
    assert legacy.read(f"{APART}/freezer.state") == "FROZEN"
    assert legacy.read(f"{ROOT}/cpu/pycore/c0ffee/cgroup.procs").split() == ["71", "72"]
    assert pause.probe(Context(legacy)) is True
    pause.do(Context(legacy))  # again, as a repair does
    pause.undo(Context(legacy))
    assert legacy.read(f"{FREEZER}/cgroup.procs").split() == ["71", "72"]
    for pid in "71", "72":
        legacy.end_process(int(pid))
    assert not legacy.exists(APART)
    assert {key for key in legacy.snapshot() if "freezer" in key} == {key for key in before if "freezer" in key}


def test_the_cgroup_is_frozen_before_anybody_is_moved_in(make: Any, legacy: FakeKernel) -> None:
    running(legacy, make(), 71)
    start = len(legacy.calls)
    pause_of(legacy, make()).do(Context(legacy))
    writes = [call for call in legacy.calls[start:] if call.startswith("write")]
    assert "FROZEN" in writes[0]
    assert "'71'" in writes[1]


def test_a_process_made_while_others_are_moved_is_moved_too(make: Any, legacy: FakeKernel) -> None:
    running(legacy, make(), 71)
    move, born = legacy.write, iter((72, 73))

    def write(path: str, text: str) -> None:
        move(path, text)
        child = next(born, None) if path == f"{APART}/cgroup.procs" else None
        if child:
            legacy.add_process(child)
            move(f"{ROOT}/cpu/pycore/c0ffee/cgroup.procs", str(child))

    legacy.write = write  # type: ignore[method-assign]
    pause_of(legacy, make()).do(Context(legacy))
    assert legacy.read(f"{APART}/cgroup.procs").split() == ["71", "72", "73"]


def test_processes_that_come_faster_than_they_are_moved_are_an_error(
    make: Any, legacy: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(legacy, make(), 71)
    monkeypatch.setattr("pycore_isolation.ops.freeze._PATIENCE", 0.01)
    monkeypatch.setattr(FreezeApart, "_late", lambda self, ctx: {"71"})
    with pytest.raises(OSError, match="cannot all be moved") as caught:
        pause_of(legacy, make()).do(Context(legacy))
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("is_legacy", [False, True])
def test_undo_is_fine_where_nothing_was_done_or_the_container_is_gone(make: Any, is_legacy: bool) -> None:
    kernel = FakeKernel(legacy=is_legacy)
    before = kernel.snapshot()
    pause = pause_of(kernel, make())
    pause.undo(Context(kernel))
    assert kernel.snapshot() == before
    running(kernel, make(), 71)
    pause.do(Context(kernel))
    kernel.end_process(71)
    pause.undo(Context(kernel))
    pause.undo(Context(kernel))
    assert not kernel.exists(f"{FREEZER}/pycore")


def test_they_go_back_to_where_they_were(make: Any, legacy: FakeKernel) -> None:
    legacy.add_file("/proc/self/cgroup", "4:freezer:/mine\n3:cpu:/\n")
    legacy.mkdir(f"{FREEZER}/mine")
    running(legacy, make(), 71)
    pause = pause_of(legacy, make())
    pause.do(Context(legacy))
    pause.undo(Context(legacy))
    assert legacy.read(f"{FREEZER}/mine/cgroup.procs").split() == ["71"]


def test_a_hybrid_host_without_the_v1_freezer_uses_its_v2_hierarchy(
    make: Any, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [("/cg/pids", "cgroup"), ("/cg/unified", "cgroup2")]
    for point, _ in mounts:
        kernel.add_file(f"{point}/", "")
    monkeypatch.setattr(kernel, "mounts", lambda: mounts)
    (pause,) = cgroups.pycore_pause(make(), host_of(kernel))
    assert pause == FreezeApart(
        "/cg/unified", "pycore", "c0ffee", "/cg/pids/pycore/c0ffee/cgroup.procs", "/cg/unified", True
    )


def test_a_host_that_cannot_freeze_says_so(make: Any, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "mounts", lambda: [("/", "ext4")])
    with pytest.raises(PycoreError, match="cannot be paused"):
        pause_of(kernel, make())


@pytest.mark.parametrize("is_legacy", [False, True])
def test_leftovers_are_what_no_journal_names(make: Any, is_legacy: bool) -> None:
    kernel = FakeKernel(legacy=is_legacy)
    empty = kernel.snapshot()
    running(kernel, make(), 71)
    pause = pause_of(kernel, make())
    pause.do(Context(kernel))
    journal = [*cgroups.pycore_prepare(make(), host_of(kernel)), pause]
    assert list(cgroups.pycore_leftovers(host_of(kernel), journal)) == []
    lost = list(cgroups.pycore_leftovers(host_of(kernel), ()))
    assert {type(operation) for operation in lost} == ({Cgroup, FreezeApart} if is_legacy else {Cgroup})
    for operation in reversed(lost):
        operation.undo(Context(kernel))
    assert not kernel.processes
    kept = f"{ROOT}/cgroup.subtree_control"
    assert kernel.snapshot(kept) == {key: value for key, value in empty.items() if not key.endswith(kept)}


def test_cgroups_of_another_instance_are_not_ours(make: Any, kernel: FakeKernel) -> None:
    running(kernel, make())
    other = Host(kernel, Path("/elsewhere"), Path("/var/lib/pycore"))
    assert list(cgroups.pycore_leftovers(other, ())) == []
