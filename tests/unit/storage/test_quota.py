"""Project quotas, on a file system that this host need not have: whose count a directory is under, and what is set."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from pycore.linux import libc, quota

FIELDS = struct.Struct("=5I8x")
LIMITS = struct.Struct("=8QI4x")
OURS = 1 << 30


class Disk:
    """What a file system with project quotas knows: the project of each file, the limits of each project."""

    def __init__(self) -> None:
        self.projects: dict[int, int] = {}
        self.blocks: dict[int, int] = {}
        self.error = 0
        """What setting a limit fails with."""

    def ioctl(self, fd: int, request: int, data: bytes) -> bytes:
        inode = os.fstat(fd).st_ino
        if request == 0x401C5820:  # FS_IOC_FSSETXATTR
            self.projects[inode] = FIELDS.unpack(data)[3]
            return data
        assert request == 0x801C581F, "FS_IOC_FSGETXATTR"
        return FIELDS.pack(0, 0, 0, self.projects.get(inode, 0), 0)

    def quotactl(self, fd: int, command: int, project: int, data: bytes) -> bytes:
        if command == 0x80000702:  # Q_GETQUOTA of projects
            blocks = self.blocks.get(project, 0)
            return LIMITS.pack(blocks, blocks, 4096, 0, 0, 1, 0, 0, 0)
        assert command == 0x80000802, "Q_SETQUOTA of projects"
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.blocks[project] = LIMITS.unpack(data)[0]
        return data


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr("fcntl.ioctl", made.ioctl)
    monkeypatch.setattr(libc, "quotactl_fd", made.quotactl)
    monkeypatch.setattr(quota, "_free_project", lambda fd, path: max([OURS, *made.projects.values()]) + 1)
    return made


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "layer/upper").mkdir(parents=True)
    (tmp_path / "layer/upper/file").touch()
    return tmp_path / "layer"


def test_all_that_is_in_it_counts(disk: Disk, layer: Path) -> None:
    quota.limit(str(layer), 5000)
    ours = disk.projects[layer.stat().st_ino]
    assert {disk.projects[path.stat().st_ino] for path in layer.rglob("*")} == {ours}
    assert disk.blocks == {ours: 5}
    quota.limit(str(layer), 1 << 20)
    assert disk.blocks == {ours: 1024}
    assert quota.usage(str(layer)) == quota.Usage(4096, 1)
    quota.forget(str(layer))
    assert disk.blocks == {ours: 0}


@pytest.mark.parametrize("project", [42, OURS + 7])
def test_a_limit_of_the_directory_above_is_somebody_elses(disk: Disk, layer: Path, project: int) -> None:
    """Files have the project of the directory that they were made in: the host's own, or that of an outer container."""
    disk.projects = dict.fromkeys((path.stat().st_ino for path in (layer.parent, layer)), project)
    disk.blocks[project] = 10
    assert quota.usage(str(layer)) is None
    quota.forget(str(layer))
    assert disk.blocks == {project: 10}
    quota.limit(str(layer), 5000)
    assert disk.projects[layer.stat().st_ino] not in (project, 0)
    assert disk.projects[layer.parent.stat().st_ino] == project
    assert disk.blocks[project] == 10


@pytest.mark.parametrize("answer", [errno.ESRCH, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_nobody_counts_any_more_nothing_is_to_be_forgotten(disk: Disk, layer: Path, answer: int) -> None:
    quota.limit(str(layer), 5000)
    disk.error = answer
    quota.forget(str(layer))
    with pytest.raises(OSError, match=os.strerror(answer)):
        quota.limit(str(layer), 6000)


def test_a_limit_that_the_kernel_does_not_take_back_is_told(disk: Disk, layer: Path) -> None:
    quota.limit(str(layer), 5000)
    disk.error = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        quota.forget(str(layer))


def test_a_directory_that_is_not_there_has_no_limit(disk: Disk, layer: Path) -> None:
    quota.forget(str(layer / "none"))
    assert quota.usage(str(layer / "none")) is None


def test_a_disk_that_knows_nothing_of_projects(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    quota.forget(str(layer))
    assert quota.usage(str(layer)) is None
