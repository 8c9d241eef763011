"""A container that takes the addresses of another is stopped; each attack works where the guard is taken away."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.lab import LAN_HOST, Lab, Running, made_lab
from support.netns import peer_seen

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "ip")]

ETH_IP, ETH_ARP, ETH_IP6, ETH_VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"
PAYLOAD = b"pycore-attack"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with made_lab(tmp_path) as made:
        yield made


@pytest.fixture
def trio(lab: Lab) -> tuple[Running, Running, Running]:
    """Who attacks, whose addresses are taken, and who is lied to."""
    return lab.start("shop/evil"), lab.start("shop/web"), lab.start("shop/db")


def mac_of(running: Running) -> str:
    return running.namespace.run("ip -br link show eth0").split()[2]


def hardware(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(source: str, destination: str, kind: int, body: bytes) -> bytes:
    return hardware(destination) + hardware(source) + kind.to_bytes(2, "big") + body


def checksum(data: bytes) -> int:
    data += bytes(len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp4(source: str, destination: str) -> bytes:
    """A packet of IPv4 to port 9; without a checksum of UDP, which is allowed there."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(PAYLOAD), 1, 0, 64, 17, 0)
    head = head[:10] + checksum(head + addresses).to_bytes(2, "big")
    return head + addresses + struct.pack("!HHHH", 9, 9, 8 + len(PAYLOAD), 0) + PAYLOAD


def ip6(source: str, destination: str, protocol: int, body: bytes) -> bytes:
    """A packet of IPv6; the checksum at the place where UDP and ICMPv6 have it."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    place = 6 if protocol == 17 else 2
    sum_ = checksum(addresses + struct.pack("!II", len(body), protocol) + body).to_bytes(2, "big")
    body = body[:place] + sum_ + body[place + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 255) + addresses + body


def udp6(source: str, destination: str) -> bytes:
    return ip6(source, destination, 17, struct.pack("!HHHH", 9, 9, 8 + len(PAYLOAD), 0) + PAYLOAD)


def arp(mac: str, address: str, operation: int = 2, target: str = "0.0.0.0") -> bytes:
    head = struct.pack("!HHBBH", 1, ETH_IP, 6, 4, operation)
    return head + hardware(mac) + socket.inet_aton(address) + bytes(6) + socket.inet_aton(target)


def advertisement(source: str, target: str, mac: str, destination: str = ALL_NODES) -> bytes:
    """A neighbour advertisement that overrides what is known (RFC 4861)."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + socket.inet_pton(socket.AF_INET6, target)
    return ip6(source, destination, 58, body + b"\2\1" + hardware(mac))


def router_advertisement(source: str, mac: str) -> bytes:
    prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 600, 600, 0) + prefix
    return ip6(
        source, ALL_NODES, 58, struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 600, 0, 0) + b"\1\1" + hardware(mac) + option
    )


def passes(
    lab: Lab, evil: Running, witness: Running, data: bytes, *, device: str = "eth0", expected: bytes = b""
) -> bool:
    """Whether a frame that one container sends comes to another, as it is or as ``expected``.

    A broadcast that is allowed marks the end.
    """
    end = frame(mac_of(evil), BROADCAST, ETH_ARP, arp(mac_of(evil), evil.address, 1, "10.255.255.254"))
    with evil.namespace.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind((device, 0))
    with witness.namespace.entered():
        hearer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        hearer.bind(("eth0", 3))
    with sender, hearer:
        hearer.settimeout(2)
        sender.send(data)
        sender.send(end)
        while True:
            got = hearer.recv(2048)
            if got == (expected or data):
                return True
            if got == end:
                return False


def without_guard(lab: Lab) -> None:
    lab.host.run(f"nft flush chain bridge {lab.view().instance} prerouting")


Attack = Callable[[Running, Running, Running], bytes]


def another_mac(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(web), mac_of(db), ETH_IP, udp4(evil.address, db.address))


def another_address(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), mac_of(db), ETH_IP, udp4(web.address, db.address))


def the_gateways_address(evil: Running, web: Running, db: Running) -> bytes:
    gateway = db.address.rpartition(".")[0].rpartition(".")[0] + ".0.1"
    return frame(mac_of(evil), mac_of(db), ETH_IP, udp4(gateway, db.address))


def another_address6(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), mac_of(db), ETH_IP6, udp6(web.address6, db.address6))


def no_address6(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), mac_of(db), ETH_IP6, udp6("::", db.address6))


def arp_for_another(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), mac_of(db), ETH_ARP, arp(mac_of(evil), web.address, target=db.address))


def arp_with_another_mac(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), BROADCAST, ETH_ARP, arp(mac_of(web), evil.address))


def arp_answer_of_nobody(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), BROADCAST, ETH_ARP, arp(mac_of(evil), "0.0.0.0"))


def neighbour_for_another(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), ALL_NODES_MAC, ETH_IP6, advertisement(evil.address6, web.address6, mac_of(evil)))


def neighbour_as_another(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), ALL_NODES_MAC, ETH_IP6, advertisement(web.address6, web.address6, mac_of(evil)))


def a_router(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), ALL_NODES_MAC, ETH_IP6, router_advertisement(evil.address6, mac_of(evil)))


def a_search_for_listeners(evil: Running, web: Running, db: Running) -> bytes:
    """After which a bridge that asks for them would send nothing to who has not answered."""
    body = struct.pack("!BBHHH", 130, 0, 0, 1000, 0) + bytes(16)
    return frame(mac_of(evil), ALL_NODES_MAC, ETH_IP6, ip6(evil.address6, ALL_NODES, 58, body))


def behind_a_tag(evil: Running, web: Running, db: Running) -> bytes:
    inner = b"\0\7" + ETH_IP.to_bytes(2, "big") + udp4(web.address, db.address)
    return frame(mac_of(evil), mac_of(db), ETH_VLAN, inner)


def another_protocol(evil: Running, web: Running, db: Running) -> bytes:
    return frame(mac_of(evil), BROADCAST, 0x88B5, PAYLOAD.ljust(60, b"\0"))


ATTACKS: list[Attack] = [
    another_mac, another_address, the_gateways_address, another_address6, no_address6, arp_for_another,
    arp_with_another_mac, arp_answer_of_nobody, neighbour_for_another, neighbour_as_another, a_router,
    a_search_for_listeners, behind_a_tag, another_protocol,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_not_its_own_is_stopped(lab: Lab, trio: tuple[Running, Running, Running], attack: Attack) -> None:
    evil, _, db = trio
    data = attack(*trio)
    assert not passes(lab, evil, db, data)
    without_guard(lab)
    # The kernel takes the tag off, and shows it beside the frame.
    expected = data[:12] + data[16:] if attack is behind_a_tag else data
    assert passes(lab, evil, db, data, expected=expected)


def own_packets(evil: Running, db: Running) -> Iterator[tuple[str, bytes]]:
    mac, target = mac_of(evil), mac_of(db)
    yield "IPv4", frame(mac, target, ETH_IP, udp4(evil.address, db.address))
    yield "IPv6", frame(mac, target, ETH_IP6, udp6(evil.address6, db.address6))
    yield "ARP", frame(mac, BROADCAST, ETH_ARP, arp(mac, evil.address, 1, db.address))
    yield "whether an address is free", frame(mac, BROADCAST, ETH_ARP, arp(mac, "0.0.0.0", 1, evil.address))
    yield "to a group", frame(mac, "33:33:00:00:00:fb", ETH_IP6, udp6(evil.address6, "ff02::fb"))
    yield "ND", frame(mac, ALL_NODES_MAC, ETH_IP6, advertisement(evil.address6, evil.address6, mac))


def test_what_is_its_own_passes(lab: Lab, trio: tuple[Running, Running, Running]) -> None:
    evil, _, db = trio
    lab.filter_on_bridges("0")  # else a packet to a group comes to nobody, with or without rules of ours
    for what, data in own_packets(evil, db):
        assert passes(lab, evil, db, data), what


def test_another_address_on_the_device_is_of_no_use(lab: Lab, trio: tuple[Running, Running, Running]) -> None:
    """As a container with CAP_NET_ADMIN would do it; and the one whose address it is goes on being reached."""
    evil, web, db = trio
    evil.namespace.run(f"ip address add {web.address}/32 dev eth0")
    evil.namespace.run(f"ip -6 address add {web.address6}/128 dev eth0 nodad")
    for family in (0, 1):
        address = web.addresses[family]
        with web.namespace.listen(80, "::" if family else "0.0.0.0") as server:
            assert peer_seen(db.namespace.socket(address=address), server, (address, 80)) == db.addresses[family]
            peer_seen(lab.host.socket(address=address), server, (address, 80))
    with evil.namespace.socket(socket.SOCK_DGRAM) as client, lab.host.socket(socket.SOCK_DGRAM) as server:
        server.bind((LAN_HOST, 9))
        server.settimeout(0.3)
        client.bind((web.address, 0))
        client.sendto(b"lie", (LAN_HOST, 9))
        with pytest.raises(TimeoutError):
            server.recv(10)


def test_the_guard_goes_with_the_container(lab: Lab, trio: tuple[Running, Running, Running]) -> None:
    evil, *_ = trio
    lab.stop(evil)
    assert "shop/evil" not in lab.host.run("nft list ruleset")
    assert not [path for path in lab.run_dir.rglob("rules/*") if "evil" in path.read_text(encoding="ascii")]
