"""Who reaches a published port, by which address, and whom the container sees: real devices and traffic."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from pycore.errors import Conflict
from support.lab import LAN_HOST, LAN_HOST6, LAN_NEIGHBOUR, LAN_NEIGHBOUR6, Lab, describe, made_lab, make, refused
from support.netns import Namespace, peer_seen

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "ip")]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with made_lab(tmp_path) as made:
        yield made


@pytest.mark.parametrize("filtered", ["0", "1"])
def test_from_other_hosts_with_their_own_addresses(lab: Lab, filtered: str) -> None:
    lab.filter_on_bridges(filtered)
    web = lab.start(ports=["8080:80"])
    with web.namespace.listen(80) as server:
        assert peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 8080)) == LAN_NEIGHBOUR


@pytest.mark.parametrize("filtered", ["0", "1"])
def test_ipv6_from_everywhere(lab: Lab, filtered: str) -> None:
    lab.filter_on_bridges(filtered)
    web, other, stranger = lab.start(ports=["8080:80"]), lab.start("shop/other"), lab.start("bank/desk")
    with web.namespace.listen(80, "::") as server:
        seen = peer_seen(lab.neighbour.socket(address="::"), server, (LAN_HOST6, 8080))
        assert seen == LAN_NEIGHBOUR6
        assert peer_seen(lab.host.socket(address="::"), server, (LAN_HOST6, 8080)) == LAN_HOST6
        for near in (web, other):  # the answer would take the short way: there the host's address is seen
            peer_seen(near.namespace.socket(address="::"), server, (LAN_HOST6, 8080))
        assert peer_seen(stranger.namespace.socket(address="::"), server, (LAN_HOST6, 8080)) == stranger.address6


def test_the_hosts_own_loopback6(lab: Lab) -> None:
    """Refused at once, rather than never answered, where the bridge itself translates what passes it."""
    lab.filter_on_bridges("0")
    web = lab.start(ports=["8080:80"])
    with web.namespace.listen(80, "::") as server:
        peer_seen(lab.host.socket(address="::1"), server, ("::1", 8080))
        lab.stop(web)


def test_the_hosts_loopback6_where_no_answer_could_come(lab: Lab) -> None:
    lab.filter_on_bridges("1")
    if "bridge" not in lab.host.run("ls /proc/sys/net").split():
        pytest.skip("no br_netfilter here")
    web = lab.start(ports=["8080:80"])
    with (
        web.namespace.listen(80, "::"),
        lab.host.socket(address="::1") as client,
        pytest.raises(ConnectionRefusedError),
    ):
        client.connect(("::1", 8080))


def test_what_others_send_to_the_hosts_loopback6_is_not_for_them(lab: Lab) -> None:
    lab.filter_on_bridges("0")
    web = lab.start(ports=["8080:80"])
    with web.namespace.listen(80, "::"), lab.host.listen(81, "::1"):
        for near in (web.namespace, lab.neighbour):
            near.run("ip -6 route del local ::1 dev lo table local")
            near.run("ip address del ::1/128 dev lo")
        web.namespace.run("ip -6 route add ::1 via " + web.address6.rpartition("::")[0] + "::1")
        lab.neighbour.run(f"ip -6 route add ::1 via {LAN_HOST6}")
        for near in (web.namespace, lab.neighbour):
            for port in (81, 8080):
                refused(near, ("::1", port))


def test_hairpin_keeps_the_address_of_another_network(lab: Lab) -> None:
    web, stranger = lab.start(ports=["8080:80"]), lab.start("bank/desk")
    with web.namespace.listen(80) as server:
        assert peer_seen(stranger.namespace.socket(), server, (LAN_HOST, 8080)) == stranger.address


def test_for_this_host_alone(lab: Lab) -> None:
    web, other = lab.start(ports=[{"port": 80, "host_port": 8080, "expose": "host"}]), lab.start("shop/other")
    with web.namespace.listen(80) as server, web.namespace.listen(80, "::") as server6:
        for address in ("127.0.0.1", LAN_HOST):
            peer_seen(lab.host.socket(), server, (address, 8080))
        peer_seen(lab.host.socket(address="::"), server6, (LAN_HOST6, 8080))
        for namespace in (lab.neighbour, other.namespace):
            refused(namespace, (LAN_HOST, 8080))
            refused(namespace, (LAN_HOST6, 8080))


def test_a_port_on_the_loopback_is_not_for_a_neighbour_who_knows_the_way(lab: Lab) -> None:
    web = lab.start(ports=["127.0.0.1:8080:80"])
    lab.neighbour.run("sysctl -q -w net.ipv4.conf.all.route_localnet=1")
    for command in ("rule add pref 1 to 127.0.0.1 lookup 7", f"route add 127.0.0.1 via {LAN_HOST} table 7"):
        lab.neighbour.run(f"ip {command}")
    lab.neighbour.run("ip rule add pref 2 lookup local")
    lab.neighbour.run("ip rule del pref 0")
    with web.namespace.listen(80) as server:
        peer_seen(lab.host.socket(), server, ("127.0.0.1", 8080))
        refused(lab.neighbour, ("127.0.0.1", 8080))


def test_for_private_networks(lab: Lab) -> None:
    web, other = lab.start(ports=[{"port": 80, "host_port": 8080, "expose": "lan"}]), lab.start("bank/desk")
    lab.neighbour.run("ip address add 192.168.7.2/24 dev lan0")
    lab.host.run("ip address add 192.168.7.1/24 dev lan0")
    with web.namespace.listen(80) as server:
        refused(lab.neighbour, (LAN_HOST, 8080))  # its address is nobody's private one
        assert peer_seen(lab.neighbour.socket(), server, ("192.168.7.1", 8080)) == "192.168.7.2"
        assert peer_seen(other.namespace.socket(), server, (LAN_HOST, 8080)) == other.address
        peer_seen(lab.host.socket(), server, ("127.0.0.1", 8080))


def test_for_some_networks(lab: Lab) -> None:
    allowed = ["198.51.100.0/24", LAN_NEIGHBOUR6]
    web = lab.start(ports=[{"port": 80, "host_port": 8080, "allow_from": allowed}])
    lab.neighbour.run("ip address add 198.51.100.2/32 dev lo")
    lab.host.run(f"ip route add 198.51.100.2 via {LAN_NEIGHBOUR}")
    lab.neighbour.run("ip address add 2001:db8::3/64 dev lan0 nodad")
    with web.namespace.listen(80) as server, web.namespace.listen(80, "::") as server6:
        refused(lab.neighbour, (LAN_HOST, 8080))
        client = lab.neighbour.socket()
        client.bind(("198.51.100.2", 0))
        assert peer_seen(client, server, (LAN_HOST, 8080)) == "198.51.100.2"
        client = lab.neighbour.socket(address="::")
        client.bind((LAN_NEIGHBOUR6, 0))
        assert peer_seen(client, server6, (LAN_HOST6, 8080)) == LAN_NEIGHBOUR6
        with lab.neighbour.socket(address="::") as other:
            other.bind(("2001:db8::3", 0))
            with pytest.raises(OSError, match=r"timed out|refused"):
                other.connect((LAN_HOST6, 8080))
        peer_seen(lab.host.socket(), server, ("127.0.0.1", 8080))


def test_a_refused_source_meets_what_there_is_without_the_port(lab: Lab) -> None:
    lab.start(ports=[{"port": 80, "host_port": 8080, "allow_from": ["198.51.100.0/24"]}])
    with lab.neighbour.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect((LAN_HOST, 8080))


def test_ranges_of_both_protocols_and_families(lab: Lab) -> None:
    web = lab.start(ports=["5300-5302:53-55", f"[{LAN_HOST6}]:5300-5302:63-65/udp"])
    for step in range(3):
        with web.namespace.listen(53 + step) as server:
            peer_seen(lab.neighbour.socket(), server, (LAN_HOST, 5300 + step))
        assert answered(lab.neighbour, web.namespace, (LAN_HOST6, 5300 + step), 63 + step)


def test_sctp_is_led_as_others_are(lab: Lab) -> None:
    """By a packet that is made here: few kernels have sockets for it."""
    web = lab.start(ports=["9000:9001/sctp"])
    with lab.neighbour.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    with web.namespace.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
    with sender, receiver:
        receiver.settimeout(1)
        sender.sendto(sctp_init(7000, 9000), (LAN_HOST, 0))
        packet, (address, _) = receiver.recvfrom(2048)
    assert address == LAN_NEIGHBOUR
    assert packet[20:24] == (7000).to_bytes(2, "big") + (9001).to_bytes(2, "big")


def sctp_init(source: int, destination: int) -> bytes:
    """An INIT chunk (RFC 9260) with the checksum that conntrack asks for (CRC32c)."""
    chunk = bytes([1, 0, 0, 20]) + (1).to_bytes(4, "big") + (65536).to_bytes(4, "big") + b"\0\1\0\1" + b"\0\0\0\1"
    head = source.to_bytes(2, "big") + destination.to_bytes(2, "big") + bytes(4)
    sum_ = 0xFFFFFFFF
    for byte in head + bytes(4) + chunk:
        sum_ ^= byte
        for _ in range(8):
            sum_ = sum_ >> 1 ^ (0x82F63B78 if sum_ & 1 else 0)
    return head + (sum_ ^ 0xFFFFFFFF).to_bytes(4, "little") + chunk


# -- networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [0, 1])
def test_networks_that_are_not_isolated_reach_each_other(lab: Lab, family: int) -> None:
    web = lab.start(tables={"default": {"isolated": False}})
    friend = lab.start("bank/desk", tables={"default": {"isolated": False}})
    stranger = lab.start("mill/wheel")
    address = web.addresses[family]
    with web.namespace.listen(80, "::" if family else "0.0.0.0") as server:
        seen = peer_seen(friend.namespace.socket(address=address), server, (address, 80))
        assert seen == friend.addresses[family]
        refused(stranger.namespace, (address, 80))
    with stranger.namespace.listen(80, "::" if family else "0.0.0.0"):
        refused(web.namespace, (stranger.addresses[family], 80))


def test_a_network_without_a_way_out(lab: Lab) -> None:
    inner, friend = (
        lab.start(name, tables={"default": {"internal": True}}, ports=ports)
        for name, ports in (("shop/db", [{"port": 80, "host_port": 8080, "expose": "host"}]), ("shop/web", []))
    )
    gateway = IPv4Interface(f"{inner.address}/22").network[1]
    inner.namespace.run(f"ip route add default via {gateway}")
    open_one = lab.start("bank/desk", ports=["9090:90"])
    with inner.namespace.listen(80) as server:
        peer_seen(friend.namespace.socket(), server, (inner.address, 80))
        peer_seen(lab.host.socket(), server, ("127.0.0.1", 8080))
        lab.neighbour.run(f"ip route add {inner.address} via {LAN_HOST}")
        refused(lab.neighbour, (inner.address, 80))
        refused(lab.neighbour, (LAN_HOST, 8080))
    with lab.neighbour.listen(80), lab.host.listen(81), open_one.namespace.listen(90):
        refused(inner.namespace, (LAN_NEIGHBOUR, 80))
        refused(inner.namespace, (LAN_HOST, 81))
        refused(inner.namespace, (LAN_HOST, 9090))
        refused(inner.namespace, (open_one.address, 90))
    kinds = [place.socket(socket.SOCK_DGRAM) for place in (lab.neighbour, inner.namespace, open_one.namespace)]
    with kinds[0] as heard, kinds[1] as inside, kinds[2] as outside:  # not one packet, answered or not
        heard.bind((LAN_NEIGHBOUR, 5000))
        heard.settimeout(10)
        inside.sendto(b"from inside", (LAN_NEIGHBOUR, 5000))
        outside.sendto(b"from an open network", (LAN_NEIGHBOUR, 5000))
        assert heard.recv(100) == b"from an open network"


def test_no_port_leads_into_a_network_without_a_way_in(lab: Lab) -> None:
    with lab.host.entered():
        view = lab.view()
        describe(make("shop", "db", tables={"default": {"internal": True}}, ports=["8080:80"]), view)
    (problem,) = view.problems
    assert "no network that ports could lead into" in problem.message


# -- who has a port, and moving it ---------------------------------------------------------------------------


def test_a_taken_port_is_told_with_its_holder(lab: Lab) -> None:
    lab.start(ports=["[::1]:8080:80", "9000:90/udp"])
    with lab.host.entered():
        for ports, words in (
            ("8080:80", "port 8080/tcp of the host leads to container shop/web already"),
            ("127.0.0.1:8080:80", ""),
            ("[::]:9000:90/udp", "port 9000/udp of the host leads to container shop/web already"),
        ):
            view = lab.view()
            describe(make("bank", "desk", ports=[ports]), view)
            assert [problem.message for problem in view.problems] == ([words] if words else [])
    with lab.host.listen(7070, "::1"), lab.host.entered():
        view = lab.view()
        describe(make("bank", "desk", ports=["7070:80"]), view)
        assert "port 7070/tcp of the host is in use by " in view.problems[0].message
    with lab.host.entered():
        *_, publish = describe(make("shop", "db", ports=["9000:90/udp"]), lab.view())
        with pytest.raises(Conflict, match="leads to shop/web already"):
            publish.do(lab.running[0].context)


@pytest.mark.parametrize(("host", "any_address"), [(LAN_HOST, "0.0.0.0"), (LAN_HOST6, "::")])
def test_a_port_moves_and_connections_by_way_of_others_stay(lab: Lab, host: str, any_address: str) -> None:
    web = lab.start(ports=["8080:80", "8081:81"])
    with web.namespace.listen(80, any_address) as moved, web.namespace.listen(81, any_address) as kept:
        clients = [lab.neighbour.socket(address=host) for _ in range(2)]
        for client, port in zip(clients, (8080, 8081), strict=True):
            client.connect((host, port))
        (one, _), (other, _) = moved.accept(), kept.accept()
        with one, other, clients[0], clients[1]:
            lab.change(web, ports=["9090:80", "8081:81"])
            clients[1].sendall(b"still here")
            assert other.recv(20) == b"still here"
            tracked = lab.host.run("conntrack -L -f " + ("ipv6" if ":" in host else "ipv4"))
            assert "dport=8080" not in tracked
            assert "dport=8081" in tracked
            peer_seen(lab.neighbour.socket(address=host), moved, (host, 9090))
            refused(lab.neighbour, (host, 8080))


@pytest.mark.parametrize("host", [LAN_HOST, LAN_HOST6])
def test_a_client_without_connections_follows_the_port(lab: Lab, host: str) -> None:
    """It sends from one and the same port all the time: what the kernel remembers must not lead it to the old place."""
    web, other = lab.start(ports=["5300:53/udp"]), lab.start("shop/other")
    with (
        udp_server(web.namespace, 53, host) as first,
        udp_server(other.namespace, 53, host) as second,
        lab.neighbour.socket(socket.SOCK_DGRAM, host) as client,
    ):
        client.sendto(b"one", (host, 5300))
        assert first.recv(10) == b"one"
        lab.change(web, ports=[])
        client.sendto(b"two", (host, 5300))  # to nobody: the kernel remembers that as well
        lab.change(other, ports=["5300:53/udp"])
        client.sendto(b"three", (host, 5300))
        assert second.recv(10) == b"three"
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.recv(10)


def test_connections_of_nobody_else_are_forgotten(lab: Lab) -> None:
    web, other = lab.start(ports=["5300:53/udp"]), lab.start("shop/other", ports=["5301:53/udp"])
    assert answered(lab.neighbour, web.namespace, (LAN_HOST, 5300), 53)
    assert answered(lab.neighbour, other.namespace, (LAN_HOST, 5301), 53)
    assert answered(web.namespace, lab.neighbour, (LAN_NEIGHBOUR, 5300), 5300)  # a port of that number, elsewhere
    lab.stop(web)
    listed = lab.host.run("conntrack -L -p udp").splitlines()
    tracked = [line.partition(" src=")[2].partition(" src=")[0] for line in listed]  # as they were begun
    assert [line for line in tracked if f"dst={LAN_HOST} " in line and "dport=5300" in line] == []
    assert len([line for line in tracked if "dport=5301" in line]) == 1
    assert len([line for line in tracked if f"dst={LAN_NEIGHBOUR} " in line and "dport=5300" in line]) == 1


def udp_server(namespace: Namespace, port: int, like: str) -> socket.socket:
    server = namespace.socket(socket.SOCK_DGRAM, like)
    server.bind(("::" if ":" in like else "0.0.0.0", port))
    return server


def answered(client: Namespace, server: Namespace, target: tuple[str, int], port: int) -> bool:
    """Whether a datagram comes, and its answer; one that is lost is sent again, as programs do."""
    with udp_server(server, port, target[0]) as there, client.socket(socket.SOCK_DGRAM, target[0]) as here:
        for _ in range(10):
            with suppress(TimeoutError):
                here.sendto(b"ask", target)
                question, address = there.recvfrom(10)
                there.sendto(b"answer", address)
                return (question, here.recv(10)) == (b"ask", b"answer")
    return False
