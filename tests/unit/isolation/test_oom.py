"""The kernel's two ways to say that a container is out of memory, with files that play the cgroup's."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from pycore_isolation.oom import MemoryAlarm


def test_v2_counts(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n")
    with closing(MemoryAlarm(str(tmp_path), unified=True).open()) as alarm:
        assert not alarm.heard(), "what was before is no news"
        file.write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n")
        assert not alarm.heard(), "at the limit, and none was killed"
        file.write_text("low 0\nhigh 0\nmax 9\noom 3\noom_kill 4\noom_group_kill 0\n")
        assert alarm.heard()
        assert not alarm.heard()


def test_v1_writes_to_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "memory.oom_control").touch()
    asked = tmp_path / "cgroup.event_control"
    asked.touch()
    with closing(MemoryAlarm(str(tmp_path), unified=False).open()) as alarm:
        number = int(asked.read_text().split()[0])
        assert number == alarm.fileno()
        assert not alarm.heard()
        os.eventfd_write(number, 3)
        assert alarm.heard()
        assert not alarm.heard()
        for file in tmp_path.iterdir():
            file.unlink()
        tmp_path.rmdir()
        os.eventfd_write(number, 1)
        assert not alarm.heard(), "the kernel writes there too when the cgroup goes"
        tmp_path.mkdir()


@pytest.mark.parametrize("unified", [False, True])
def test_without_the_cgroup_there_is_no_alarm(tmp_path: Path, unified: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        MemoryAlarm(str(tmp_path / "gone"), unified).open()
    assert len(os.listdir("/proc/self/fd")) == before
