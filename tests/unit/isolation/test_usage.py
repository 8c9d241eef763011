"""What a container uses, and why it ended, as its cgroups tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.ops import Context
from pycore.testing.fake import FakeKernel
from pycore_isolation import cgroups

ROOT = "/sys/fs/cgroup"
V2 = f"{ROOT}/pycore/c0ffee"
V1 = {name: f"{ROOT}/{name}/pycore/c0ffee" for name in ("cpu", "memory", "pids")}


def prepared(kernel: FakeKernel, container: Any, files: dict[str, str]) -> Host:
    host = Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
    for operation in cgroups.pycore_prepare(container, host):
        operation.do(Context(kernel))
    for path, text in files.items():
        kernel.add_file(path, text)
    return host


def test_v2(make: Any, kernel: FakeKernel) -> None:
    files = {
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        "memory.current": "9000\n",
        "memory.stat": "anon 1\ninactive_file 1000\n",
        "pids.current": "3\n",
        "io.stat": "8:0 rbytes=100 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n254:0 \n",
    }
    host = prepared(kernel, make(memory="1M"), {f"{V2}/{name}": text for name, text in files.items()})
    assert cgroups.pycore_stats(make(), host) == {
        "cpu_seconds_total": 2.5,
        "memory_bytes": 8000,
        "memory_limit_bytes": 1 << 20,
        "pids": 3,
        "block_read_bytes_total": 101,
        "block_write_bytes_total": 22,
    }


def test_v1_without_cpuacct_counts_the_processes(make: Any) -> None:
    kernel = FakeKernel({"/proc/71/stat": "71 (a ) b) S 1 " + "0 " * 9 + "100 50 30 20 0 0"}, legacy=True)
    files = {
        f"{V1['cpu']}/cgroup.procs": "71\n72\n",
        f"{V1['memory']}/memory.usage_in_bytes": "5000\n",
        f"{V1['memory']}/memory.stat": "cache 1\ntotal_inactive_file 1000\n",
        f"{V1['pids']}/pids.current": "2\n",
    }
    host = prepared(kernel, make(), files)
    assert cgroups.pycore_stats(make(), host) == {"cpu_seconds_total": 2.0, "memory_bytes": 4000, "pids": 2}


def test_v1_with_cpuacct(make: Any) -> None:
    kernel = FakeKernel(legacy=True)
    host = prepared(kernel, make(memory="1M"), {f"{V1['cpu']}/cpuacct.usage": "1500000000\n"})
    found = cgroups.pycore_stats(make(), host)
    assert found["cpu_seconds_total"] == 1.5
    assert found["memory_limit_bytes"] == 1 << 20


@pytest.mark.parametrize("legacy", [False, True])
def test_a_container_that_is_gone_uses_nothing(make: Any, legacy: bool) -> None:
    host = Host(FakeKernel(legacy=legacy), Path("/run/pycore"), Path("/var/lib/pycore"))
    assert cgroups.pycore_stats(make(), host) == {}
    assert cgroups.pycore_ended(make(), host, -9) is None


KILLED = {False: f"{V2}/memory.events", True: f"{V1['memory']}/memory.oom_control"}
FORKS = {False: f"{V2}/pids.events", True: f"{V1['pids']}/pids.events"}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("status", [-9, 137, None])
def test_killed_for_want_of_memory(make: Any, legacy: bool, status: int | None) -> None:
    kernel = FakeKernel(legacy=legacy)
    host = prepared(kernel, make(memory="64M"), {KILLED[legacy]: "oom 1\noom_kill 1\n"})
    assert cgroups.pycore_ended(make(memory="64M"), host, status) == "memory limit 64M reached"


def test_another_end_is_not_said_to_be_for_memory(make: Any, kernel: FakeKernel) -> None:
    host = prepared(kernel, make(memory="64M"), {KILLED[False]: "oom_kill 1\n"})
    assert cgroups.pycore_ended(make(memory="64M"), host, 1) is None


def test_without_a_limit_it_is_the_hosts_memory(make: Any, kernel: FakeKernel) -> None:
    host = prepared(kernel, make(), {KILLED[False]: "oom_kill 1\n"})
    assert cgroups.pycore_ended(make(), host, -9) == "the host ran out of memory"


def test_what_was_counted_in_an_earlier_run_does_not_count_again(make: Any, kernel: FakeKernel) -> None:
    host = prepared(kernel, make(memory="64M"), {KILLED[False]: "oom_kill 1\n"})
    container = make(memory="64M")
    assert cgroups.pycore_ended(container, host, -9) == "memory limit 64M reached"
    assert cgroups.pycore_ended(container, host, -9) is None
    kernel.add_file(KILLED[False], "oom_kill 3\n")
    assert cgroups.pycore_ended(container, host, -9) == "memory limit 64M reached"
    kernel.add_file(KILLED[False], "oom_kill 1\n")  # cgroups made anew
    assert cgroups.pycore_ended(container, host, -9) == "memory limit 64M reached"


@pytest.mark.parametrize("legacy", [False, True])
def test_too_many_processes(make: Any, legacy: bool) -> None:
    host = prepared(FakeKernel(legacy=legacy), make(pids=100), {FORKS[legacy]: "max 5\n"})
    assert cgroups.pycore_ended(make(pids=100), host, 1) == "the limit of 100 processes was reached"
    assert cgroups.pycore_ended(make(pids=100), host, 1) is None
    well = prepared(FakeKernel(legacy=legacy), make(pids=100), {FORKS[legacy]: "max 5\n"})
    assert cgroups.pycore_ended(make(pids=100), well, 0) is None
