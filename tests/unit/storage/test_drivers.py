"""What the two drivers describe, on a host in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.image import Image
from pycore.ops import Context, Operation, from_record, to_record
from pycore.spec import Container
from pycore.testing.fake import FakeKernel
from pycore_storage import overlayfs, vfs
from pycore_storage.ops.layers import HostPart, Layer, MemoryRoot, OverlayRoot, Quota, Volatile
from pycore_storage.ops.roots import Copy, DirectoryRoot, ReadOnlyRoot

Make = Callable[..., Container]
LAYER = "/var/lib/pycore/containers/c0ffee/layer"


def prepare(driver: ModuleType, container: Container, host: Host) -> list[Operation]:
    return list(driver.pycore_prepare(container, host))


def enter(driver: ModuleType, container: Container, host: Host) -> list[Operation]:
    return list(driver.pycore_enter(container, host))


def do(operations: list[Operation], kernel: FakeKernel) -> None:
    for operation in operations:
        operation.do(Context(kernel))


def undo(operations: list[Operation], kernel: FakeKernel) -> None:
    for operation in reversed(operations):
        operation.undo(Context(kernel))


def mounts(monkeypatch: pytest.MonkeyPatch, *more: tuple[str, str]) -> None:
    found = [("/", "ext4"), ("/proc", "proc"), ("/run", "tmpfs"), *more]
    monkeypatch.setattr(FakeKernel, "mounts", lambda _: found)


def test_the_hosts_root_is_shown_without_what_is_pycores(make: Make, host: Host) -> None:
    assert prepare(overlayfs, make(), host) == [Layer(LAYER, "/", ("/run/pycore", "/var/lib/pycore"))]
    assert enter(overlayfs, make(), host) == [OverlayRoot(("/",), LAYER)]


def test_a_directory(make: Make, host: Host) -> None:
    container = make("/srv/root", read_only=True)
    assert prepare(overlayfs, container, host) == [Layer(LAYER, "/srv/root")]
    assert enter(overlayfs, container, host) == [OverlayRoot(("/srv/root",), LAYER, own=True), ReadOnlyRoot()]


def test_a_directory_that_holds_pycores_own(make: Make, host: Host) -> None:
    assert prepare(overlayfs, make("/var"), host) == [Layer(LAYER, "/var", ("/lib/pycore",))]


def test_a_relative_path_starts_at_the_spec(make: Make, host: Host, kernel: FakeKernel) -> None:
    kernel.add_file("/spec/rootfs/", "")
    assert enter(overlayfs, make("./rootfs"), host) == [OverlayRoot(("/spec/rootfs",), LAYER, own=True)]
    assert enter(overlayfs, make("../srv/root"), host) == [OverlayRoot(("/srv/root",), LAYER, own=True)]


def test_slash_is_the_host(make: Make, host: Host) -> None:
    assert prepare(overlayfs, make("/srv/.."), host) == prepare(overlayfs, make("host"), host)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("./nothing", "there is no /spec/nothing"),
        ("/nothing", "there is no /nothing"),
    ],
)
@pytest.mark.parametrize("driver", [overlayfs, vfs])
def test_an_image_that_is_not_there(make: Make, host: Host, driver: ModuleType, image: str, words: str) -> None:
    container = make(image)
    assert prepare(driver, container, host) == []
    enter(driver, container, host)
    (problem,) = host.problems
    assert problem.path == ("image",)
    assert words in problem.message
    assert problem.hint


def test_vfs_copies(make: Make, host: Host) -> None:
    copy = "/var/lib/pycore/containers/c0ffee/copy"
    assert prepare(vfs, make("/srv/root"), host) == [Copy(("/srv/root",), copy)]
    assert enter(vfs, make("/srv/root", read_only=True), host) == [DirectoryRoot(f"{copy}/root"), ReadOnlyRoot()]


@pytest.mark.parametrize("image", ["host", "/", "/var"])
def test_vfs_does_not_copy_the_host_or_itself(make: Make, host: Host, image: str) -> None:
    assert prepare(vfs, make(image), host) == []
    assert [problem.path for problem in host.problems] == [("image",)]


@pytest.mark.parametrize("fstype", ["overlay", "nfs4", "vfat", "fuse.sshfs", "9p"])
def test_where_the_disk_cannot_hold_a_layer_it_is_in_memory(
    make: Make, host: Host, monkeypatch: pytest.MonkeyPatch, fstype: str
) -> None:
    mounts(monkeypatch, ("/var/lib", fstype))
    assert prepare(overlayfs, make(), host) == []
    (root,) = enter(overlayfs, make(), host)
    assert root == MemoryRoot(("/",), ("/run/pycore", "/var/lib/pycore"))
    assert "in memory" in root.explain()


def test_disks_of_the_host_where_programs_are(
    make: Make, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("/usr/local/", "/usr/share/", "/home/", "/opt/", "/usrlocal/", "/etc/keys/", "/lib/pycore/"):
        kernel.add_file(directory, "")
    kernel.add_file("/etc/resolv.conf", "")
    mounts(
        monkeypatch,
        ("/usr/share", "xfs"),  # below /usr, so it comes with it
        ("/usr", "ext4"),
        ("/usrlocal", "ext4"),
        ("/home", "ext4"),
        ("/opt", "tmpfs"),
        ("/etc/keys", "btrfs"),
        ("/etc/resolv.conf", "ext4"),  # a file: as in somebody's container
    )
    assert enter(overlayfs, make(), host)[1:] == [HostPart("/etc/keys"), HostPart("/usr")]
    assert enter(overlayfs, make("/srv/root"), host)[1:] == []


def test_a_disk_that_holds_pycores_own_is_not_shown(
    make: Make, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.add_file("/opt/pycore/", "")
    mounts(monkeypatch, ("/opt", "ext4"))
    host = Host(kernel, Path("/run/pycore"), Path("/opt/pycore"))
    assert enter(overlayfs, make(), host)[1:] == []


def test_in_a_user_namespace_layers_are_shown_with_other_owners(make: Make, host: Host, kernel: FakeKernel) -> None:
    described = prepare(overlayfs, make("/srv/root"), host)
    for operation in described:
        operation.do(Context(kernel, root_id=100000))
    (root,) = enter(overlayfs, make("/srv/root"), host)
    assert isinstance(root, OverlayRoot)
    root.hold(Context(kernel, root_id=100000, id_count=65536))
    assert [call for call in kernel.calls if "mount_owners" in call and "'0 100000 65536\\n'" in call]
    kernel.calls.clear()
    (root,) = enter(overlayfs, make(), host)
    assert isinstance(root, OverlayRoot)
    root.hold(Context(kernel, root_id=100000, id_count=65536))
    assert not [call for call in kernel.calls if "mount_owners" in call]
    kernel.close_all()


LAYERS = ("/layers/2", "/layers/1")


def test_an_image_of_several_layers(make: Make, host: Host, kernel: FakeKernel) -> None:
    image = Image("app:1", digest=f"sha256:{'0' * 64}", layers=LAYERS)
    container = make("app:1", of=image)
    assert prepare(overlayfs, container, host) == [Layer(LAYER, "/layers/1")]
    assert enter(overlayfs, container, host) == [OverlayRoot(LAYERS, LAYER, own=True)]
    assert prepare(vfs, container, host) == [Copy(LAYERS, "/var/lib/pycore/containers/c0ffee/copy")]


def test_a_limit_needs_a_disk_that_keeps_it(make: Make, host: Host, kernel: FakeKernel) -> None:
    container = make("/srv/root", size="10G")
    described = prepare(overlayfs, container, host)
    assert described == [Layer(LAYER, "/srv/root"), Quota(LAYER, 10 << 30)]
    do(described, kernel)
    assert kernel.quotas == {LAYER: 10 << 30}
    undo(described, kernel)
    assert kernel.quotas == {}
    kernel.keeps_quotas = False
    for driver in (overlayfs, vfs):
        prepare(driver, container, host)
        assert host.problems.pop().path == ("storage", "size")


def test_a_layer_in_memory_has_its_limit_there(make: Make, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts(monkeypatch, ("/var/lib", "overlay"))
    (root,) = enter(overlayfs, make("/srv/root", size="1M"), host)
    assert root == MemoryRoot(("/srv/root",), own=True, size=1 << 20)
    assert host.problems == []


def test_a_volatile_layer_outlives_its_container_but_no_boot(make: Make, host: Host, kernel: FakeKernel) -> None:
    boot = "/proc/sys/kernel/random/boot_id"
    kernel.add_file(boot, "one")
    described = prepare(overlayfs, make("/srv/root", volatile=True), host)
    assert described == [Volatile(LAYER), Layer(LAYER, "/srv/root")]
    do(described, kernel)
    kernel.add_file(f"{LAYER}/upper/kept", "")
    do(described, kernel)
    assert kernel.exists(f"{LAYER}/upper/kept")
    kernel.add_file(boot, "two")
    do(described, kernel)
    assert kernel.listdir(f"{LAYER}/upper") == []


@pytest.mark.parametrize("image", ["host", "/srv/root"])
@pytest.mark.parametrize("driver", [overlayfs, vfs])
def test_describing_changes_nothing_and_is_the_same_again(
    make: Make, host: Host, kernel: FakeKernel, driver: ModuleType, image: str
) -> None:
    before = kernel.snapshot()
    container = make(image)
    described = prepare(driver, container, host)
    assert kernel.snapshot() == before
    assert kernel.calls == []
    do(described, kernel)
    assert prepare(driver, container, host) == described
    undo(described, kernel)
    undo(described, kernel)


@pytest.mark.parametrize("image", ["host", "/srv/root"])
def test_operations_survive_the_journal(make: Make, host: Host, image: str) -> None:
    for driver in (overlayfs, vfs):
        container = make(image, read_only=True)
        for operation in prepare(driver, container, host) + enter(driver, container, host):
            record: dict[str, Any] = json.loads(json.dumps(to_record(operation)))
            assert from_record(record) == operation
            assert operation.explain()


def test_overlayfs_is_asked_of_the_kernel(kernel: FakeKernel) -> None:
    (requirement,) = overlayfs.pycore_requirements(kernel)
    assert requirement.met
    kernel.add_file("/proc/filesystems", "\text4\n")
    (requirement,) = overlayfs.pycore_requirements(kernel)
    assert not requirement.met
    assert requirement.mend == "modprobe overlay"
