"""Netlink in batches and nftables in process, against the kernel, in namespaces of the test's own."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from pycore.linux import netlink, nftables
from pycore_network import links
from support.netns import Namespace

pytestmark = pytest.mark.root

MAC = links.mac_of("10.0.0.1")


@pytest.fixture
def space() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


def names(namespace: Namespace) -> list[str]:
    with namespace.entered():
        return [name for _, name in socket.if_nameindex()]


def test_a_batch_goes_to_another_namespace_and_the_thread_stays(space: Namespace) -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    netlink.send([links.bring_up(links.LOOPBACK_INDEX), links.make_bridge("pc-test-000001", MAC, 0)], space.pid)
    assert names(space) == ["lo", "pc-test-000001"]
    assert os.readlink("/proc/thread-self/ns/net") == own


def test_the_first_failure_is_told_and_the_rest_is_done(space: Namespace) -> None:
    batch = [
        links.join_bridge("nothing", 1),
        links.default_route("10.0.0.1", 1),
        links.make_bridge("pc-test-000001", MAC, 0),
    ]
    with pytest.raises(OSError, match="No such device") as caught:
        netlink.send(batch, space.pid)
    assert caught.value.errno == errno.ENODEV
    assert "pc-test-000001" in names(space)


def test_the_kernels_own_words_are_passed_on(space: Namespace) -> None:
    with pytest.raises(OSError, match=r"Network is unreachable \(Nexthop has invalid gateway\)"):
        netlink.send([links.default_route("10.0.0.1", 1)], space.pid)


def test_no_such_process_leaves_the_thread_where_it_was() -> None:
    own = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(FileNotFoundError):
        netlink.send([links.bring_up(links.LOOPBACK_INDEX)], 1 << 30)
    assert os.readlink("/proc/thread-self/ns/net") == own


def test_threads_do_not_disturb_each_other() -> None:
    spaces = [Namespace() for _ in range(4)]
    try:
        threads = [
            threading.Thread(
                target=lambda pid=space.pid: [
                    netlink.send([links.make_bridge(f"pc-test-00000{number}", MAC, 0)], pid) for number in range(9)
                ]
            )
            for space in spaces
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(names(space)) for space in spaces] == [10] * 4
    finally:
        for space in spaces:
            space.close()


def test_waiting_for_a_device(space: Namespace) -> None:
    veth = links.make_veth("eth0", MAC, 0, "other", 7, threading.get_native_id())
    with space.entered():
        netlink.send([veth, links.join_bridge("other", 0)])
        netlink.wait_until_up(["eth0", "other"])
        with pytest.raises(OSError, match="No such device") as missing:
            netlink.wait_until_up(["nothing"])
        space.run("ip link set other down")
        with pytest.raises(OSError, match="does not come up") as down:
            netlink.wait_until_up(["eth0"], seconds=0.02)
    assert (missing.value.errno, missing.value.filename) == (errno.ENODEV, "nothing")
    assert (down.value.errno, down.value.filename) == (errno.ETIMEDOUT, "eth0")


@pytest.mark.needs("libnftables")
def test_nft_commands_are_one_transaction(space: Namespace) -> None:
    with space.entered():
        with pytest.raises(FileNotFoundError, match="nftables: "):
            nftables.run("add table inet first\nadd element inet second some { 1 }")
        assert not nftables.has_table("inet first")
        nftables.run("add table inet first; add table ip first")
        assert nftables.has_table("inet first")
        assert not nftables.has_table("inet firs")
        assert not nftables.has_table("ip6 first")


@pytest.mark.needs("libnftables")
def test_nft_words_become_errnos(space: Namespace) -> None:
    with space.entered():
        nftables.run("add table inet t; add map inet t m { type inet_service : inet_service; }")
        nftables.run("add set inet t s { type ipv4_addr; flags interval; }")
        nftables.run("add element inet t m { 1 : 2 }")
        for commands, number in (
            ("add element inet t m { 1 : 3 }", errno.EEXIST),
            ("delete element inet t m { 9 }", errno.ENOENT),
            ("delete element inet t s { 10.0.0.0/8 }", errno.ENOENT),
            ("delete table inet u", errno.ENOENT),
            ("this is no command", errno.EINVAL),
        ):
            with pytest.raises(OSError, match="nftables: ") as caught:
                nftables.run(commands)
            assert caught.value.errno == number, commands


@pytest.mark.needs("libnftables")
def test_nft_follows_the_thread_from_namespace_to_namespace(space: Namespace) -> None:
    with space.entered():
        nftables.run("add table inet here")
    assert not nftables.has_table("inet here")
    with space.entered():
        assert nftables.has_table("inet here")


@pytest.mark.needs("libnftables")
def test_nft_after_a_fork(space: Namespace) -> None:
    with space.entered():
        nftables.run("add table inet parent")
        child = os.fork()
        if child == 0:
            try:
                nftables.run("add table inet child")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert nftables.has_table("inet child")
        assert nftables.has_table("inet parent")
