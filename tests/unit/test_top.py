"""The processes of a container, out of /proc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace

from pycore.linux.look import Look
from pycore.looking.stats import Sample
from pycore.looking.told import Told
from pycore.looking.top import processes
from pycore.records.state import ContainerRecord


class Proc(Look):
    """A /proc of our own: process id to (parent, namespace, command line)."""

    def __init__(self, table: Mapping[int, tuple[int, str, str]], gone: int = 0) -> None:
        self.table, self.gone = table, gone

    def listdir(self, path: str) -> list[str]:
        return ["1x", "self", *map(str, [*self.table, *([self.gone] if self.gone else [])])]

    def link(self, path: str) -> str:
        pid = int(path.split("/")[2])
        return "host" if pid == os.getpid() else self.table[pid][1]

    def read(self, path: str, limit: int = 1 << 20) -> str:
        _, _, pid, name = path.split("/")
        if int(pid) == self.gone:
            raise ProcessLookupError
        parent, _, command = self.table[int(pid)]
        if name == "stat":
            fields = ["S", str(parent)] + ["0"] * 9 + ["150", "50", "0", "0", "0", "0", "0", "0", "100", "0", "3"]
            return f"{pid} (a) b (c)) {' '.join(fields)}\n"
        texts = {"cmdline": command, "status": "Name:\tx\nUid:\t0\t100007\t0\t0\n", "uid_map": "0 100000 65536\n"}
        return texts[name][:limit]


def test_all_of_the_namespace_and_what_descends_from_it() -> None:
    table = {
        1: (0, "host", "init"), 50: (1, "c", "sh\0-c\0x\0"), 51: (50, "c", ""), 60: (1, "c", "exec\0"),
        70: (51, "nested", "inner"), 80: (1, "host", "other"), 90: (80, "d", "of another"),
    }  # fmt: skip
    found = processes(Proc(table, gone=99), 50)
    assert [each.pid for each in found] == [50, 51, 60, 70]
    first = found[0]
    assert (first.ppid, first.user, first.command) == (1, "7", "sh -c x")
    assert first.cpu_seconds == 200 / os.sysconf("SC_CLK_TCK")
    assert first.memory_bytes == 3 * os.sysconf("SC_PAGE_SIZE")
    assert found[1].command == "[a) b (c)]", "a name may look like anything"


def test_in_the_hosts_namespace_only_what_descends_from_the_first() -> None:
    table = {1: (0, "host", "init"), 50: (1, "host", "a"), 51: (50, "host", "b"), 60: (1, "host", "c")}
    assert [each.pid for each in processes(Proc(table), 50)] == [50, 51]


def test_one_that_has_ended_has_none() -> None:
    assert processes(Proc({1: (0, "host", "init")}), 50) == []


def test_the_real_proc_is_understood() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        (found,) = processes(Look(), process.pid)
        process.kill()
    assert (found.pid, found.ppid) == (process.pid, os.getpid())
    assert found.user == str(os.geteuid())


def sample(time: float, cpu: float, pid: int = 5) -> Sample:
    return Sample("shop/web", "id", pid, time, {"cpu_seconds_total": cpu})


def test_a_share_is_counted_between_two_samples_of_one_process() -> None:
    before, now = sample(10.0, 1.0), sample(12.0, 2.0)
    assert now.cpu_percent(before) == 50.0
    assert now.cpu_percent(None) is None
    assert now.cpu_percent(sample(10.0, 1.0, pid=4)) is None, "it has been started again"
    assert now.cpu_percent(now) is None
    assert Sample("shop/web", "id", 5, 12.0, {}).cpu_percent(before) is None
    assert now.to_json(before) == {
        "container": "shop/web", "id": "id", "pid": 5, "cpu_percent": 50.0, "cpu_seconds_total": 2.0,
    }  # fmt: skip


def test_plugins_are_asked_anew_when_there_may_be_another_answer() -> None:
    asked: list[str] = []
    alive: list[ContainerRecord] = []

    def ask(record: ContainerRecord) -> dict[str, object]:
        asked.append(record.id)
        return {"address": f"of {record.id} {record.pid}"}

    told = Told(ask, lambda: alive)
    one = ContainerRecord("1", "a", "b", {}, "/", status="created")
    told.of(one)["address"] = "changed by who asked"
    assert told.of(replace(one, health="healthy")) == {"address": "of 1 0"}
    assert asked == ["1"]
    assert told.of(replace(one, pid=7)) == {"address": "of 1 7"}
    assert asked == ["1", "1"]
    for number in range(1000):
        told.of(ContainerRecord(f"x{number}", "a", "b", {}, "/"))
    assert len(told._known) <= 64, "those that are gone are forgotten"
