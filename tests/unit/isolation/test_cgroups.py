"""Where the cgroups are, what is written in them, and how they go."""

from __future__ import annotations

import errno
from typing import Any

import pydantic
import pytest
from pycore.hookspecs import Host
from pycore.ops import Context, Operation
from pycore.testing.fake import FakeKernel
from pycore_isolation import cgroups
from pycore_isolation.cgroups import Legacy, Resources, Unified, hierarchy
from pycore_isolation.ops.cgroups import Cgroup, CgroupNamespace, JoinCgroup, Limit

ROOT = "/sys/fs/cgroup"
HERE = f"{ROOT}/pycore/c0ffee"
SEPARATE = ("cpu", "cpuacct", "memory", "pids", "freezer")


def mounted(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, *mounts: tuple[str, str]) -> None:
    monkeypatch.setattr(kernel, "mounts", lambda: [("/", "ext4"), *mounts])
    for point, _ in mounts:
        kernel.add_file(f"{point}/", "")


def described(container: Any, host: Host) -> list[Operation]:
    return list(cgroups.pycore_prepare(container, host))


# -- where they are ------------------------------------------------------------------------------------------


def test_v2(kernel: FakeKernel) -> None:
    assert hierarchy(kernel) == Unified(ROOT, counts_swap=False)
    assert hierarchy(FakeKernel({"/proc/swaps": ""})) == Unified(ROOT, counts_swap=True)


def test_v1(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(kernel, monkeypatch, *((f"/cg/{name}", "cgroup") for name in SEPARATE))
    roots = (("cpu", "/cg/cpu"), ("memory", "/cg/memory"), ("pids", "/cg/pids"))
    assert hierarchy(kernel) == Legacy(roots, counts_swap=False)


def test_a_hybrid_host_has_its_controllers_in_v1(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(kernel, monkeypatch, ("/cg/unified", "cgroup2"), ("/cg/cpu,cpuacct", "cgroup"), ("/cg/pids", "cgroup"))
    kernel.add_file("/cg/unified/cgroup.controllers", "hugetlb")
    assert hierarchy(kernel) == Legacy((("cpu", "/cg/cpu,cpuacct"), ("pids", "/cg/pids")), False)


def test_none(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(kernel, monkeypatch)
    assert hierarchy(kernel) is None


def test_not_those_that_are_read_only(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "is_writable", lambda path: False)
    assert hierarchy(kernel) is None
    (requirement,) = cgroups.pycore_requirements(kernel)
    assert not requirement.met


# -- what is described ---------------------------------------------------------------------------------------

EVERYTHING = {"memory": "1M", "cpus": 1.5, "cpu_shares": 512, "pids": 100}


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({"cgroup.type": "domain\n", "cgroup.procs": "1\n"}, False),
        ({"cgroup.type": "domain\n", "cgroup.procs": ""}, True),
        ({"cgroup.type": "domain\n", "cgroup.procs": "1\n", "cgroup.subtree_control": "cpu memory pids\n"}, True),
        ({"cgroup.procs": "1\n"}, True),
        ({"cgroup.controllers": "cpu memory\n"}, False),
    ],
)
def test_a_cgroup_with_processes_gives_its_controllers_to_none_below(files: dict[str, str], usable: bool) -> None:
    kernel = FakeKernel({f"{ROOT}/{name}": text for name, text in files.items()})
    assert (hierarchy(kernel) is not None) == usable


def test_looked_for_again_only_while_something_is_missing(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(kernel, monkeypatch)
    assert hierarchy(kernel) is None
    mounted(kernel, monkeypatch, (ROOT, "cgroup2"))
    assert hierarchy(kernel) is not None
    monkeypatch.setattr(kernel, "mounts", lambda: pytest.fail("looked again"))
    assert hierarchy(kernel) is not None


def test_limits_of_v2(make: Any, host: Host, kernel: FakeKernel) -> None:
    kernel.add_file("/proc/swaps", "")
    assert described(make(**EVERYTHING), host) == [
        Cgroup(ROOT, "pycore", "c0ffee", ("cpu", "memory", "pids")),
        Limit(HERE, (("cpu.max", "150000 100000", "max"),)),
        Limit(HERE, (("cpu.weight", "50", "100"),)),
        Limit(HERE, (("memory.max", "1048576", "max"),)),
        Limit(HERE, (("memory.swap.max", "1048576", "max"),)),
        Limit(HERE, (("pids.max", "100", "max"),)),
    ]


def test_limits_of_v1(make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(kernel, monkeypatch, *((f"/cg/{name}", "cgroup") for name in SEPARATE))
    kernel.add_file("/cg/memory/memory.memsw.limit_in_bytes", "")
    assert described(make(**EVERYTHING, swap="0"), host) == [
        Cgroup("/cg/cpu", "pycore", "c0ffee"),
        Cgroup("/cg/memory", "pycore", "c0ffee"),
        Cgroup("/cg/pids", "pycore", "c0ffee"),
        Limit(
            "/cg/cpu/pycore/c0ffee",
            (("cpu.cfs_period_us", "100000", "100000"), ("cpu.cfs_quota_us", "150000", "-1")),
        ),
        Limit("/cg/cpu/pycore/c0ffee", (("cpu.shares", "512", "1024"),)),
        Limit(
            "/cg/memory/pycore/c0ffee",
            (("memory.limit_in_bytes", "1048576", "-1"), ("memory.memsw.limit_in_bytes", "1048576", "-1")),
        ),
        Limit("/cg/pids/pycore/c0ffee", (("pids.max", "100", "max"),)),
    ]


def test_joining_v1_takes_no_lock_over_all_processes(
    make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(kernel, monkeypatch, ("/cg/pids", "cgroup"))
    assert JoinCgroup(("/cg/pids/pycore/c0ffee/tasks",)) in list(cgroups.pycore_enter(make(), host))


@pytest.mark.parametrize(("shares", "weight"), [(2, "1"), (1024, "100"), (262144, "10000")])
def test_shares_as_weight(make: Any, host: Host, shares: int, weight: str) -> None:
    assert Limit(HERE, (("cpu.weight", weight, "100"),)) in described(make(cpu_shares=shares), host)


def test_without_being_asked_only_the_number_of_processes_is_limited(make: Any, host: Host) -> None:
    assert [operation for operation in described(make(), host) if isinstance(operation, Limit)] == [
        Limit(HERE, (("pids.max", "4096", "max"),))
    ]
    assert Limit(HERE, (("pids.max", "max", "max"),)) in described(make(pids=0), host)
    assert list(cgroups.pycore_enter(make(), host)) == [
        JoinCgroup((f"{HERE}/cgroup.procs",)),
        CgroupNamespace(),
    ]


def test_a_limit_that_cannot_be_set_is_a_problem_and_its_absence_none(
    make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(kernel, monkeypatch, ("/cg/pids", "cgroup"))
    described(make(pids=5), host)
    assert not host.problems
    described(make(pids=5, memory="1M", cpus=1.0), host)
    assert [problem.path for problem in host.problems] == [("resources", "cpus"), ("resources", "memory")]
    mounted(kernel, monkeypatch)
    host.problems.clear()
    assert described(make(), host) == []
    assert not host.problems
    assert list(cgroups.pycore_enter(make(), host)) == [CgroupNamespace()]
    described(make(pids=5), host)
    assert [problem.path for problem in host.problems] == [("resources", "pids")]


@pytest.mark.parametrize(
    "fields",
    [
        {"memory": "much"},
        {"cpus": 0.0},
        {"cpus": float("nan")},
        {"cpus": float("inf")},
        {"cpu_shares": 1},
        {"pids": -1},
    ],
)
def test_what_is_no_limit(fields: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Resources.model_validate(fields)


# -- what is done --------------------------------------------------------------------------------------------


def apply(kernel: FakeKernel, operations: list[Operation]) -> None:
    for operation in operations:
        operation.do(Context(kernel))


def take_back(kernel: FakeKernel, operations: list[Operation]) -> None:
    for operation in reversed(operations):
        operation.undo(Context(kernel))


def test_made_limited_and_removed_with_the_parent(make: Any, host: Host, kernel: FakeKernel) -> None:
    operations = described(make(memory="1M"), host)
    before = kernel.snapshot(f"{ROOT}/cgroup.subtree_control")
    apply(kernel, operations)
    assert kernel.read(f"{HERE}/memory.max") == "1048576"
    assert set(kernel.read(f"{ROOT}/pycore/cgroup.subtree_control").split()) == {"cpu", "memory", "pids"}
    take_back(kernel, operations)
    take_back(kernel, operations)
    assert kernel.snapshot(f"{ROOT}/cgroup.subtree_control") == before


def test_the_parent_stays_for_another_container(make: Any, host: Host, kernel: FakeKernel) -> None:
    one, other = (described(make().with_id(identity), host) for identity in ("1", "2"))
    apply(kernel, one + other)
    take_back(kernel, one)
    assert kernel.is_dir(f"{ROOT}/pycore/2")
    take_back(kernel, other)
    assert not kernel.exists(f"{ROOT}/pycore")


def test_what_is_left_inside_is_killed(make: Any, host: Host, kernel: FakeKernel) -> None:
    operations = described(make(), host)
    apply(kernel, operations)
    kernel.mkdir(f"{HERE}/below")
    for pid, place in ((71, HERE), (72, f"{HERE}/below")):
        kernel.add_process(pid)
        kernel.write(f"{place}/cgroup.procs", str(pid))
    take_back(kernel, operations)
    assert not kernel.processes
    assert not kernel.exists(HERE)


def test_a_process_that_does_not_die_is_an_error(
    make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pycore_isolation.ops.cgroups._PATIENCE", 0.01)
    monkeypatch.setattr(kernel, "kill", lambda pid, number: None)
    operations = described(make(), host)
    apply(kernel, operations)
    kernel.add_process(71)
    kernel.write(f"{HERE}/cgroup.procs", "71")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        take_back(kernel, operations)
    assert caught.value.errno == errno.EBUSY
    assert kernel.processes


def test_a_limit_that_goes_while_the_container_runs_is_lifted(make: Any, host: Host, kernel: FakeKernel) -> None:
    before, after = described(make(memory="1M", pids=5), host), described(make(pids=5), host)
    apply(kernel, before)
    take_back(kernel, [operation for operation in before if operation not in after])
    apply(kernel, [operation for operation in after if operation not in before])
    assert kernel.read(f"{HERE}/memory.max") == "max"
    assert kernel.read(f"{HERE}/pids.max") == "5"


def test_the_process_joins(kernel: FakeKernel, make: Any, host: Host) -> None:
    apply(kernel, described(make(), host))
    child = kernel.add_process(71)
    JoinCgroup((f"{HERE}/cgroup.procs",)).do(Context(child))
    assert kernel.read(f"{HERE}/cgroup.procs").split() == ["71"]
