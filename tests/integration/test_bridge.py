"""The bridge driver with real devices and traffic: a host, its neighbour on the LAN, and containers, in namespaces."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.errors import Conflict
from pycore.linux import nftables
from pycore.linux.look import Look
from pycore.ops import Context, from_record, to_record
from pycore.steps import Step
from pycore_network import bridge, requirements
from support.lab import LAN_HOST, LAN_NEIGHBOUR, Lab, made_lab, make, refused
from support.netns import Namespace, peer_seen

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "ip")]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with made_lab(tmp_path) as made:
        yield made


def test_container_and_host_reach_each_other(lab: Lab) -> None:
    web = lab.start()
    with web.namespace.listen(80) as server:
        gateway = web.address.rpartition(".")[0] + ".1"
        assert peer_seen(lab.host.socket(), server, (web.address, 80)).startswith("10.208.")
    with lab.host.listen(81) as server:
        assert peer_seen(web.namespace.socket(), server, ("10.208.0.1", 81)) == web.address, gateway


def test_nobody_is_asked_whether_an_address_is_free(lab: Lab) -> None:
    """Leases see to it. Of many in one network each would ask all others, at every start."""
    web = lab.start()
    rows = [row.split() for row in web.namespace.run("cat /proc/net/if_inet6").splitlines()]
    flags = {int(address[:4], 16): int(flags, 16) for address, _, _, _, flags, device in rows if device == "eth0"}
    nodad, tentative, permanent = 0x02, 0x40, 0x80
    assert len(flags) == 2
    assert all(flag & (nodad | tentative | permanent) == nodad | permanent for flag in flags.values())


def test_the_way_out_hides_the_containers_address(lab: Lab) -> None:
    web = lab.start()
    with lab.neighbour.listen(80) as server:
        assert peer_seen(web.namespace.socket(), server, (LAN_NEIGHBOUR, 80)) == LAN_HOST


@pytest.mark.parametrize("bridge_netfilter", ["0", "1"])
def test_published_port_from_everywhere(lab: Lab, bridge_netfilter: str) -> None:
    """Also where br_netfilter lets the bridge apply the rules to what stays inside it (Docker loads it)."""
    if "bridge" in lab.host.run("ls /proc/sys/net").split():
        lab.host.run(f"sysctl -q -w net.bridge.bridge-nf-call-iptables={bridge_netfilter}")
    web, other = lab.start(ports=("8080:80",)), lab.start("shop/other")
    with web.namespace.listen(80) as server:
        assert peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080)) == LAN_NEIGHBOUR
        for address in ("127.0.0.1", "127.0.0.5", LAN_HOST, "10.208.0.1"):
            peer_seen(lab.host.socket(), server, (address, 8080))
        for namespace in (web.namespace, other.namespace):
            for address in (LAN_HOST, "10.208.0.1"):
                peer_seen(namespace.socket(), server, (address, 8080))


def test_published_port_is_open_to_other_networks(lab: Lab) -> None:
    web, stranger = lab.start(ports=("8080:80",)), lab.start("bank/desk")
    with web.namespace.listen(80) as server:
        peer_seen(stranger.namespace.socket(), server, (LAN_HOST, 8080))


def test_udp_range_and_address(lab: Lab) -> None:
    web = lab.start(ports=(f"{LAN_HOST}:5300-5302:53-55/udp",))
    with web.namespace.socket(socket.SOCK_DGRAM) as server, lab.neighbour.socket(socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 55))
        client.sendto(b"ask", (LAN_HOST, 5302))
        question, address = server.recvfrom(10)
        server.sendto(b"answer", address)
        assert (question, client.recv(10)) == (b"ask", b"answer")


def test_port_on_loopback_is_for_the_host_alone(lab: Lab) -> None:
    web = lab.start(ports=("127.0.0.1:8080:80",))
    with web.namespace.listen(80) as server:
        peer_seen(lab.host.socket(), server, ("127.0.0.1", 8080))
        refused(lab.neighbour, (LAN_HOST, 8080))


def test_unpublished_port_is_closed_to_those_who_know_the_way(lab: Lab) -> None:
    web = lab.start()
    lab.neighbour.run(f"ip route add {web.address} via {LAN_HOST}")
    with web.namespace.listen(80) as server:
        refused(lab.neighbour, (web.address, 80))
        lab.host.run(f"nft flush chain inet {lab.view().instance} forward")
        peer_seen(lab.neighbour.socket(), server, (web.address, 80))  # so it was the rules that closed it


def test_networks_are_closed_to_each_other(lab: Lab) -> None:
    web, stranger, friend = lab.start(), lab.start("bank/desk"), lab.start("shop/db")
    with web.namespace.listen(80) as server:
        refused(stranger.namespace, (web.address, 80))
        assert peer_seen(friend.namespace.socket(), server, (web.address, 80)) == friend.address


def test_the_hosts_loopback_is_closed_to_containers(lab: Lab) -> None:
    web = lab.start()
    for command in (
        "sysctl -q -w net.ipv4.conf.all.route_localnet=1",
        "ip rule add pref 1 to 127.0.0.9 lookup main",
        "ip rule add pref 2 lookup local",
        "ip rule del pref 0",
        "ip route add 127.0.0.9 via 10.208.0.1",
    ):
        web.namespace.run(command)
    with lab.host.listen(81, "127.0.0.9") as server:
        refused(web.namespace, ("127.0.0.9", 81))
        lab.host.run(f"nft flush chain inet {lab.view().instance} guard")
        peer_seen(web.namespace.socket(), server, ("127.0.0.9", 81))


def test_networks_of_one_name_are_one(lab: Lab) -> None:
    web, desk = lab.start(network="common"), lab.start("bank/desk", network="common")
    with web.namespace.listen(80) as server:
        assert peer_seen(desk.namespace.socket(), server, (web.address, 80)) == desk.address


def test_nothing_is_left(lab: Lab) -> None:
    before = lab.devices()
    web, desk = lab.start(ports=("8080:80", "8081-8083:81-83/udp")), lab.start("bank/desk", ports=("9090:90",))
    assert len(lab.devices() - before) == 4
    lab.stop(web)
    assert lab.tables() == [f"table {family} {lab.view().instance}" for family in ("inet", "bridge")]
    with desk.namespace.listen(90) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 9090))
    assert "shop" not in lab.host.run("nft list ruleset")
    lab.stop(desk)
    assert lab.tables() == []
    assert lab.devices() == before
    assert [path for path in lab.run_dir.rglob("*") if path.is_file()] == []


def test_undo_of_what_was_never_done_and_twice(lab: Lab) -> None:
    web = lab.start(ports=("8080:80",))
    never = make("bank", "desk", ports=("9090:90",))
    with lab.host.entered():
        view = lab.view()
        for operation in (*bridge.pycore_prepare(never, view), *bridge.pycore_attach(never, view)):
            operation.undo(web.context)
    with web.namespace.listen(80) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))
    lab.stop(web)
    with lab.host.entered():
        for operation in reversed(web.operations):
            operation.undo(web.context)


def test_failed_start_gives_everything_back(lab: Lab) -> None:
    """As when a program is not found: the namespace lives while its operations are undone."""
    before = lab.devices()
    web = lab.start(ports=("8080:80",))
    with lab.host.entered():
        for operation in reversed(web.operations):
            operation.undo(web.context)
    assert lab.devices() == before


def test_operations_survive_the_journal(lab: Lab) -> None:
    web = lab.start(ports=("8080:80",))
    web.operations = [from_record(to_record(operation)) for operation in web.operations]
    lab.stop(web)
    assert lab.tables() == []


def test_restart_while_the_old_namespace_is_still_going_down(lab: Lab) -> None:
    web = lab.start(ports=("8080:80",))
    fresh = Namespace()
    kept = os.open(f"/proc/{web.namespace.pid}/ns/net", os.O_RDONLY)
    try:
        web.namespace.close()
        web.context.pid, web.namespace = fresh.pid, fresh
        links = [operation for operation in web.operations if operation.step is Step.LINK]
        with lab.host.entered():
            for link in links:
                link.undo(web.context)
            for link in links:
                link.do(web.context)
    finally:
        os.close(kept)
    with fresh.listen(80) as server:
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))


def test_a_port_has_one_holder(lab: Lab) -> None:
    lab.start(ports=("8080:80",))
    with pytest.raises(Conflict, match="leads to shop/web already"):
        lab.start("shop/db", ports=("8080:80",))
    with lab.host.entered():
        view = lab.view()
        list(bridge.pycore_attach(make("bank", "desk", ports=("127.0.0.1:8080:80",)), view))
    (problem,) = view.problems
    assert problem.message == "port 8080/tcp of the host leads to container shop/web already"
    assert problem.path == ("network", "ports", 0)


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
def test_a_port_that_a_process_holds(lab: Lab, address: str) -> None:
    with lab.host.listen(8080, address), lab.host.entered():
        view = lab.view()
        list(bridge.pycore_attach(make("bank", "desk", ports=("8080:80",)), view))
    assert f"(pid {os.getpid()})" in view.problems[0].message


def test_description_is_the_same_once_it_runs(lab: Lab) -> None:
    web = lab.start(ports=("8080:80",))
    lab.start("shop/other")
    with lab.host.entered():
        view, container = lab.view(), make("shop", "web", ports=("8080:80",))
        again = [*bridge.pycore_prepare(container, view), *bridge.pycore_attach(container, view)]
        told = bridge.pycore_inspect(container, lab.view())
    assert again == web.operations
    assert told["address"] == web.address
    assert told["ports"] == ["*:8080->80/tcp"]


def test_a_subnet_in_use_is_refused(lab: Lab) -> None:
    lab.start(subnet="10.77.0.0/24")
    with lab.host.entered():
        for app, subnet in (("bank", "192.0.2.128/25"), ("bank", "10.77.0.0/16"), ("shop", "10.78.0.0/24")):
            view = lab.view()
            desk = make(app, "desk", subnet=subnet)
            list(bridge.pycore_prepare(desk, view))
            list(bridge.pycore_attach(desk, view))
            assert len(view.problems) == 1


def test_networks_mends_what_was_taken_away(lab: Lab) -> None:
    web = lab.start()
    lab.host.run("nft flush ruleset")
    lab.start("shop/other")
    with lab.neighbour.listen(80) as server:
        assert peer_seen(web.namespace.socket(), server, (LAN_NEIGHBOUR, 80)) == LAN_HOST


def test_ruleset_keeps_nobody_elses_rules(lab: Lab) -> None:
    lab.host.run("nft add table inet theirs")
    lab.stop(lab.start(ports=("8080:80",)))
    assert lab.tables() == ["table inet theirs"]


def test_who_joins_and_who_leaves_at_the_same_time(lab: Lab) -> None:
    """The last to leave takes the network down; never under the feet of one who has just joined."""
    failures: list[BaseException] = []

    def come_and_go(name: str) -> None:
        try:
            with lab.host.entered():
                join, _ = bridge.pycore_prepare(make(name, "web", network="common"), lab.view())
                context = Context(lab.kernel, f"{name}/web")
                for _ in range(10):
                    join.do(context)
                    lab.kernel.link_index(join.bridge)  # type: ignore[attr-defined]
                    join.undo(context)
        except BaseException as error:
            failures.append(error)

    with lab.host.entered():  # all of them have the same subnet in mind
        first, _ = bridge.pycore_prepare(make("first", "web", network="common"), lab.view())
        first.do(Context(lab.kernel))
        first.undo(Context(lab.kernel))
    threads = [threading.Thread(target=come_and_go, args=(f"app{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert lab.tables() == []


def test_without_the_library_nothing_is_left(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "LIBRARY", "libnftables.so.none")
    nftables._library.cache_clear()
    before = lab.devices()
    with lab.host.entered():
        join, _ = bridge.pycore_prepare(make("shop", "web"), lab.view())
        context = Context(lab.kernel, "shop/web")
        with pytest.raises(OSError, match="apt-get install libnftables1"):
            join.do(context)
        join.undo(context)
    nftables._library.cache_clear()
    assert lab.devices() == before
    assert list((lab.run_dir / "networks").iterdir()) == []


def test_doctor_sees_a_firewall_that_drops(lab: Lab) -> None:
    """As Docker and ufw set it up; an accept in our own table cannot overrule it."""
    lab.host.run("nft add table ip filter")
    lab.host.run("nft add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }")
    web = lab.start(ports=("8080:80",))
    with web.namespace.listen(80) as server, lab.host.entered():
        assert not requirements.forwarding(Look()).met
        refused(lab.neighbour, (LAN_HOST, 8080))
        for side in ("iifname", "oifname"):
            nftables.run(f'add rule ip filter FORWARD {side} "pc-*" accept')
        assert requirements.forwarding(Look()).met
        peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080))
