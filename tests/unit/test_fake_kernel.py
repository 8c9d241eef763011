"""The host in memory: nothing of it is real, and it does what the kernel would."""

from __future__ import annotations

import errno
import inspect
import os
from dataclasses import replace

import pytest
from pycore.linux.kernel import Kernel
from pycore.linux.nftelements import Put, Withdraw, renewal
from pycore.testing.fake import FakeKernel
from pycore_network import links, ruleset
from pycore_network.elements import Element
from pycore_network.ops import kept

DERIVED = ("in_user_namespace",)
"""What is said of other methods' answers alone."""
METHODS = sorted(
    name
    for name, _ in inspect.getmembers(Kernel, inspect.isfunction)
    if not name.startswith("_") and name not in DERIVED
)


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_kernel_is_another_one_here(name: str) -> None:
    assert getattr(FakeKernel, name) is not getattr(Kernel, name)
    assert list(inspect.signature(getattr(FakeKernel, name)).parameters) == list(
        inspect.signature(getattr(Kernel, name)).parameters
    )


def test_a_call_can_be_made_to_fail_once(kernel: FakeKernel) -> None:
    kernel.fail_at(2, error=OSError(errno.ENOSPC, "full"))
    kernel.mkdir("/a")
    with pytest.raises(OSError, match="full"):
        kernel.mkdir("/b")
    kernel.mkdir("/c")
    assert kernel.listdir("/a") == []
    assert not kernel.exists("/b")
    assert kernel.calls == ["mkdir('/a')", "mkdir('/b')", "mkdir('/c')"]


def test_a_control_group_has_files_and_goes_when_it_is_empty(kernel: FakeKernel) -> None:
    before = kernel.snapshot()
    kernel.mkdir("/sys/fs/cgroup/x/y")
    kernel.write("/sys/fs/cgroup/x/y/memory.max", "4096")
    child = kernel.add_process(7)
    child.write("/sys/fs/cgroup/x/y/cgroup.procs", "0")
    assert kernel.read("/sys/fs/cgroup/x/y/cgroup.procs") == "7\n"
    for path in ("/sys/fs/cgroup/x/y", "/sys/fs/cgroup/x"):
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            kernel.rmdir(path)
    with pytest.raises(FileNotFoundError):
        kernel.write("/sys/fs/cgroup/x/y/nothing", "1")
    kernel.kill(7, 9)
    kernel.rmdir("/sys/fs/cgroup/x/y")
    kernel.rmdir("/sys/fs/cgroup/x")
    assert kernel.snapshot() == before


def test_what_a_process_mounts_and_makes_is_its_own(kernel: FakeKernel) -> None:
    child = kernel.add_process(7)
    tree = child.mount_new("tmpfs", {"size": "1M"}, 2)
    child.mount_attributes(tree, 1)
    child.mount_place(tree, "/made/for/it")
    assert (child.mounted[0].target, child.mounted[0].attributes) == ("/made/for/it", 3)
    assert child.filesystem("/made/for/it/below") == "tmpfs"
    assert not kernel.exists("/made")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(tree)


def test_a_descriptor_that_was_closed_is_no_mount_any_more(kernel: FakeKernel) -> None:
    tree = kernel.mount_clone("/etc/hosts")
    os.close(tree)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.mount_attributes(tree, 1)
    kernel.close_all()


def test_a_veth_pair_goes_with_the_namespace_of_either_end(kernel: FakeKernel) -> None:
    before = kernel.snapshot()
    kernel.netlink([links.make_bridge("br-00aa11", links.mac_of("10.0.0.1"), 0)])
    index = kernel.link_index("br-00aa11")
    kernel.netlink([links.add_address(index, "10.0.0.1", 24), links.add_address(index, "10.0.0.1", 24)])
    kernel.add_process(7)
    inside = [
        links.make_veth("eth0", links.mac_of("10.0.0.2"), 0, "peer", links.group_of("br-00aa11"), os.getpid()),
        *links.settle("eth0", ["10.0.0.2/24"]),
        links.default_route("10.0.0.1", links.index_of("eth0")),
    ]
    kernel.netlink(inside, 7)
    kernel.netlink([links.join_bridge("peer", index)])
    assert kernel.links() == ["br-00aa11", "lo", "peer"]
    assert kernel.snapshot()["link peer"] == ("veth", True, "br-00aa11", links.group_of("br-00aa11"), [])
    space = kernel.network.namespaces[7]
    assert (space.links["eth0"].addresses, space.routes) == ({"10.0.0.2/24"}, {"default via 10.0.0.1"})
    with pytest.raises(FileExistsError):
        kernel.netlink(inside[:1], 7)
    kernel.end_process(7)
    assert kernel.links() == ["br-00aa11", "lo"]
    kernel.netlink([links.delete_link("br-00aa11")])
    with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
        kernel.netlink([links.delete_link("br-00aa11")])
    assert kernel.snapshot() == before


def test_nft_is_in_transactions(kernel: FakeKernel) -> None:
    port = Element("inet", "ports", "tcp . 80", "10.0.0.2 . 8080", "app/web")
    network = Element("inet", "bridges", '"br-00aa11"')
    with pytest.raises(FileNotFoundError):
        kernel.nft_change("t", [Put(network)])
    kernel.nft(ruleset.create("t") + kept.text("t", [network]))
    assert kernel.nft_has("inet t")
    assert kernel.nft_has("bridge t")
    assert kernel.nft_packets("t", [network, port]) == [0, None]
    kernel.nft_change("t", [Put(port), Put(port)])
    kernel.nft(kept.text("t", [port]))
    assert kernel.nftables.tables["inet t"]["ports"] == {"tcp . 80": "10.0.0.2 . 8080"}
    with pytest.raises(FileExistsError):
        kernel.nft_change("t", [Withdraw(network), Put(replace(port, value="1.2.3.4 . 1"))])
    assert kernel.nft_packets("t", [network, port, replace(port, value="1.2.3.4 . 1")]) == [0, 0, None]
    assert kernel.nft_elements("inet t", "bridges") == {'"br-00aa11"': ""}
    kernel.nft_change("t", [Withdraw(port), *renewal(network, 9)])
    with pytest.raises(FileNotFoundError):
        kernel.nft_change("t", [Withdraw(port)])
    kernel.nft(ruleset.delete("t"))
    assert not kernel.nft_has("inet t")


def test_a_link_is_followed_where_the_kernel_follows_it(kernel: FakeKernel) -> None:
    kernel.make_link("/etc", "/link")
    kernel.make_link("loop", "/loop")
    assert kernel.read("/link/hosts") == kernel.read("/etc/hosts")
    assert (kernel.link_text("/link"), kernel.real("/link/none/x")) == ("/etc", "/etc/none/x")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        kernel.read("/loop")
    kernel.unlink("/link")
    assert kernel.exists("/etc/hosts")
