"""What is mounted where, and with what it can do no harm."""

from __future__ import annotations

from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.ops import Context, InsideOperation, Operation
from pycore.testing.fake import FakeKernel
from pycore_isolation import paths
from pycore_isolation.ops.paths import NODEV, NOEXEC, NOSUID, READ_ONLY, Device, Mask, Mount, ReadOnly


def run(kernel: FakeKernel, operations: list[Operation]) -> FakeKernel:
    """What happens inside, in a process of its own."""
    child = kernel.add_process(71)
    context = Context(child)
    for operation in operations:
        if isinstance(operation, InsideOperation):
            operation.hold(context)
    for operation in operations:
        operation.do(context)
    assert not context.held
    return child


@pytest.fixture
def inside(make: Any, host: Host, kernel: FakeKernel) -> FakeKernel:
    for path in (
        "/proc/keys",
        "/proc/kcore",
        "/proc/acpi/",
        "/proc/sys/",
        "/sys/devices/system/cpu/cpu0/thermal_throttle/",
    ):
        kernel.add_file(path, "")
    return run(kernel, list(paths.pycore_enter(make(), host)))


def test_nothing_that_is_mounted_gives_a_device_or_a_program(inside: FakeKernel) -> None:
    seen: set[str] = set()
    for mount in inside.mounted:
        if mount.source in seen:  # a clone of what was mounted there, attributes included
            continue
        seen.add(mount.target)
        assert mount.attributes & NOSUID, mount
        assert mount.attributes & NOEXEC, mount
        devices = mount.target == "/dev/pts" or mount.target in {device.path for device in paths.DEVICES}
        assert devices or mount.attributes & NODEV, mount


def test_the_hosts_own_inodes_are_read_only(inside: FakeKernel) -> None:
    bound = [mount for mount in inside.mounted if mount.fstype == "bind" and mount.target.startswith("/dev/")]
    assert {mount.target for mount in bound} == {device.path for device in paths.DEVICES}
    assert all(mount.attributes & READ_ONLY for mount in bound)


@pytest.mark.parametrize("target", ["/sys", "/sys/fs/cgroup", "/proc/sys", "/proc/acpi"])
def test_read_only(inside: FakeKernel, target: str) -> None:
    (mount,) = (mount for mount in inside.mounted if mount.target == target)
    assert mount.attributes & READ_ONLY


def test_masked(make: Any, host: Host, kernel: FakeKernel) -> None:
    for path in ("/proc/keys", "/proc/scsi/", "/sys/devices/system/cpu/cpu3/thermal_throttle/"):
        kernel.add_file(path, "")
    (mask,) = (each for each in paths.pycore_enter(make(), host) if isinstance(each, Mask))
    assert mask.files == ("/proc/keys",)
    assert set(mask.directories) == {"/proc/scsi", "/sys/firmware", "/sys/devices/system/cpu/cpu3/thermal_throttle"}


def test_a_masked_directory_is_empty_and_a_masked_file_too(inside: FakeKernel) -> None:
    over = {mount.target: mount for mount in inside.mounted}
    assert over["/proc/keys"].source == over["/proc/kcore"].source == "/dev/null"
    assert over["/proc/acpi"].fstype == "tmpfs"
    assert over["/sys/firmware"].source == "/proc/acpi"
    assert over["/sys/devices/system/cpu/cpu0/thermal_throttle"].source == "/proc/acpi"


def test_v1_hosts_show_no_cgroups(make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "mounts", lambda: [("/cg/pids", "cgroup")])
    kernel.add_file("/cg/pids/", "")
    targets = [each.target for each in paths.pycore_enter(make(), host) if isinstance(each, Mount)]
    assert "/sys/fs/cgroup" not in targets


def test_links(inside: FakeKernel) -> None:
    assert inside.link_text("/dev/stdout") == "/proc/self/fd/1"
    assert inside.link_text("/dev/ptmx") == "pts/ptmx"


def test_held_before_the_root_changes(kernel: FakeKernel) -> None:
    context = Context(kernel)
    held: list[InsideOperation] = [Mount("proc", "/proc", 0), Mount("sysfs", "/sys", 0), Device("/dev/null")]
    for operation in (*held, Mount("tmpfs", "/dev", 0)):
        operation.hold(context)
    assert list(context.held) == held
    kernel.close_all()


def test_explained() -> None:
    assert Mount("tmpfs", "/x", NODEV | READ_ONLY, (("size", "1k"), ("flag", None))).explain() == (
        "mount tmpfs on /x (ro,nodev,size=1k,flag)"
    )
    assert ReadOnly(("/a", "/b")).explain() == "read-only: /a, /b"
