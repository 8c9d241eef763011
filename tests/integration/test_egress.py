"""A bound container sends to what its spec names alone; whatever it tries comes through where it is not bound."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
from support.command import Command, on_host, wait_readable
from support.netns import Namespace, entered
from support.resolving import SECONDS, Upstream, says

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp", "libnftables", "ip", "nft")]

HOST, GOOD, EVIL = "192.0.2.1", "192.0.2.10", "192.0.2.66"
HOST6, GOOD6, EVIL6 = "2001:db8::1", "2001:db8::10", "2001:db8::66"
OUTSIDE = "127.0.53.78"
PORT, OTHER_PORT = 7443, 7444
SERVE = (
    "import socket, threading; t = socket.create_server(('', 80), family=socket.AF_INET6, dualstack_ipv6=True); "
    "u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('', 81)); "
    "threading.Thread(target=lambda: [u.sendto(*u.recvfrom(99)) for _ in iter(int, 1)]).start(); "
    "print('ready', flush=True); c = []\\nwhile True:\\n s = t.accept()[0]; c.append(s); s.sendall(b'hello')"
)


@dataclass
class World:
    """A host, and beyond it a network with a good and an evil machine, which are one here."""

    host: Namespace
    beyond: Namespace
    names: Upstream


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    host, beyond = Namespace(loopback=True), Namespace(loopback=True)
    host.run(f"ip link add eth0 type veth peer name eth0 netns {beyond.pid}")
    for each, addresses in ((host, (HOST, HOST6)), (beyond, (GOOD, EVIL, GOOD6, EVIL6))):
        for address in addresses:
            words = f"{address}/64 dev eth0 nodad" if ":" in address else f"{address}/24 dev eth0"
            each.run(f"ip address add {words}")
        each.bring_up("eth0")
    host.wait_until_reached(GOOD, EVIL, GOOD6, EVIL6)
    if Path("/proc/sys/net/bridge").exists():
        for family in ("iptables", "ip6tables"):
            host.run(f"sysctl -q -w net.bridge.bridge-nf-call-{family}={getattr(request, 'param', 0)}")
    with host.entered():
        names = Upstream(says(GOOD, GOOD6, ttl=60), (OUTSIDE, 53))
    yield World(host, beyond, names)
    with host.entered():
        names.close()
    host.close()
    beyond.close()


@pytest.fixture
def pycore(world: World, tmp_path: Path) -> Iterator[Command]:
    """The command, on that host."""
    command = on_host(tmp_path, world.host.pid)
    yield command
    command.end()


def spec(*entries: str, name: str = "shop", more: str = "") -> str:
    """An app of a bound container, and of two that are not."""
    egress = f"egress = {list(entries)}\n"
    tables = [
        f'[container.{each}]\nimage = "host"\ncommand = ["{sys.executable}", "-c", """{SERVE}"""]\n'
        f'stop_signal = "KILL"\n[container.{each}.network]\ndns = ["{OUTSIDE}"]\n{own}'
        for each, own in (("bound", egress + more), ("free", ""), ("db", ""))
    ]
    return f'name = "{name}"\n' + "".join(tables)


@dataclass
class Box:
    """A container as its attacker has it: sockets of every kind."""

    pid: int
    address: str
    address6: str
    gateway: str
    gateway6: str

    def socket(self, kind: socket.SocketKind, target: str, protocol: int = 0) -> socket.socket:
        with entered(self.pid):
            made = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind, protocol)
        made.settimeout(2)
        return made

    def connects(self, target: str, port: int) -> bool:
        with self.socket(socket.SOCK_STREAM, target) as client:
            try:
                client.connect((target, port))
            except OSError:
                return False
            return True

    def ask(self, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        with entered(self.pid):
            return (dns.query.tcp if tcp else dns.query.udp)(query, self.gateway, timeout=SECONDS)

    def addresses(self, name: str, kind: str = "A") -> list[str]:
        return [str(each) for rrset in self.ask(name, kind).answer for each in rrset]


def box(pycore: Command, name: str) -> Box:
    found = pycore.json("inspect", name)
    with pycore.popen("logs", "-f", name) as logs:  # until its servers are there
        assert logs.stdout
        assert logs.stdout.readline() == "ready\n"
        logs.terminate()
    network: dict[str, list[str]] = next(iter(found["networks"].values()))
    addresses = [each.partition("/")[0] for each in network["addresses"]]
    return Box(int(found["pid"]), *addresses, *network["gateways"])


def up(pycore: Command, text: str) -> tuple[Box, Box, Box]:
    """The bound one, one that is not, and their neighbour."""
    pycore("apply", pycore.write(text))
    bound, free, db = (box(pycore, f"shop/{each}") for each in ("bound", "free", "db"))
    return bound, free, db


def server(namespace: Namespace, port: int, address: str = "::") -> socket.socket:
    """Takes connections at any address of both families."""
    with namespace.entered():
        made = socket.socket(socket.AF_INET6)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen()
    return made


def elements(world: World, name: str) -> str:
    table = next(line.split()[2] for line in world.host.run("nft list tables").splitlines() if "bridge" in line)
    return world.host.run(f"nft list set bridge {table} {name}").partition("elements")[2]


# -- what is allowed ---------------------------------------------------------------------------------------


def test_a_name_its_port_and_nothing_else(pycore: Command, world: World) -> None:
    bound, free, _ = up(pycore, spec(f"example.org:{PORT}"))
    with server(world.beyond, PORT), server(world.beyond, OTHER_PORT):
        assert free.connects(GOOD, PORT)
        assert not bound.connects(GOOD, PORT)  # nobody has asked for it yet
        assert bound.addresses("Example.ORG") == [GOOD]
        assert bound.connects(GOOD, PORT)
        assert not bound.connects(GOOD, OTHER_PORT)
        assert not bound.connects(EVIL, PORT)
        assert not bound.connects(GOOD6, PORT)
        assert bound.addresses("example.org", "AAAA") == [GOOD6]
        assert bound.connects(GOOD6, PORT)
        assert not bound.connects(EVIL6, PORT)
    learned = elements(world, "learned")
    assert f"{bound.address} . {GOOD} . tcp . {PORT} timeout 1m30s" in learned
    assert '"shop/bound' in learned
    told = pycore.json("network", "egress", "shop/bound")
    assert told["allowed"] == {f"example.org:{PORT}/tcp": [GOOD, GOOD6]}
    assert told["denied"] == sorted(
        [
            f"{GOOD}:{PORT}/tcp",
            f"{GOOD}:{OTHER_PORT}/tcp",
            f"{EVIL}:{PORT}/tcp",
            f"[{GOOD6}]:{PORT}/tcp",
            f"[{EVIL6}]:{PORT}/tcp",
        ]
    )
    assert f"may send to\n  example.org:{PORT}/tcp  {GOOD} {GOOD6}\nwithin" in pycore("net", "egress", "shop/bound")
    assert pycore("net", "egress", "shop/free") == "shop/free may send to everybody\n"
    assert "no such container" in pycore.fails("net", "egress", "shop/nobody", status=1)
    asked = len(world.names.asked)
    for name, kind in (("evil.example.org", "A"), ("secret.example.net", "TXT"), ("db", "A"), ("example", "A")):
        for tcp in (False, True):
            assert bound.ask(name, kind, tcp=tcp).rcode() == dns.rcode.REFUSED
    assert len(world.names.asked) == asked
    assert free.ask("evil.example.org").rcode() == dns.rcode.NOERROR


def test_names_below_one_ports_in_a_row_and_all_of_a_network(pycore: Command, world: World) -> None:
    entries = ("*.example.org:7000-7010", f"{EVIL}/32:*", f"[{EVIL6}]:{PORT}", f"{GOOD}:{OTHER_PORT}/udp")
    bound, *_ = up(pycore, spec(*entries))
    assert bound.ask("example.org").rcode() == dns.rcode.REFUSED
    assert bound.addresses("a.b.example.org") == [GOOD]
    with server(world.beyond, 7005), server(world.beyond, PORT):
        assert bound.connects(GOOD, 7005)
        assert not bound.connects(GOOD, PORT)
        assert bound.connects(EVIL, PORT)
        assert bound.connects(EVIL, 7005)
        assert bound.connects(EVIL6, PORT)
        assert not bound.connects(EVIL6, 7005)
    assert arrives(world, bound, udp_to(GOOD, OTHER_PORT))
    assert not arrives(world, bound, udp_to(GOOD, PORT))
    assert arrives(world, bound, ping_to(EVIL))


def test_entries_may_overlap(pycore: Command, world: World) -> None:
    entries = ("192.0.2.0/24:7443", "192.0.2.64/26:7440-7450", f"{EVIL}:*", "*:7460", "192.0.2.0/25:7444-7470")
    bound, *_ = up(pycore, spec(*entries))
    ports = (7439, 7440, 7443, 7444, 7460, 7470, 7471)
    open_at = {GOOD: {7443, 7444, 7460, 7470}, EVIL: {*ports}, GOOD6: {7460}}
    for address, wanted in open_at.items():
        for port in ports:
            with server(world.beyond, port):
                assert bound.connects(address, port) == (port in wanted), (address, port)


def test_an_empty_list_is_nothing_but_answers(pycore: Command, world: World) -> None:
    bound, free, _ = up(pycore, spec(more='ports = ["8080:80"]\n'))
    with server(world.beyond, PORT):
        assert free.connects(GOOD, PORT)
        assert not bound.connects(GOOD, PORT)
    for source, target in ((world.beyond, HOST), (world.host, bound.address), (world.beyond, HOST6)):
        with source.socket(address=target) as client:
            client.connect((target, 80 if target == bound.address else 8080))
            assert client.recv(9) == b"hello"


# -- attacks -----------------------------------------------------------------------------------------------

PAYLOAD = b"the secret of the shop"
Send = Callable[[Box], None]


def sending(target: str, kind: socket.SocketKind, protocol: int, body: bytes, port: int = 0) -> Send:
    def send(sender: Box) -> None:
        with sender.socket(kind, target, protocol) as sock:
            try:
                for _ in range(3):
                    sock.sendto(body, (target, port))
            except OSError:  # it has been told that it may not
                pass

    return send


def udp_to(target: str, port: int) -> Send:
    return sending(target, socket.SOCK_DGRAM, 0, PAYLOAD, port)


def ping_to(target: str) -> Send:
    if ":" in target:
        return sending(target, socket.SOCK_RAW, socket.IPPROTO_ICMPV6, b"\x80\0\0\0\0\1\0\1" + PAYLOAD)
    head = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    total = sum(struct.unpack(f"!{(len(head) + len(PAYLOAD)) // 2}H", head + PAYLOAD))
    total = (total & 0xFFFF) + (total >> 16)
    return sending(
        target, socket.SOCK_RAW, socket.IPPROTO_ICMP, struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, 1, 1) + PAYLOAD
    )


def answer_of_nobody(sender: Box) -> None:
    """The middle of a connection that never began."""
    head = struct.pack("!HHIIBBHHH", 80, 40000, 1, 1, 0x50, 0x18, 1000, 0, 0)
    sending(EVIL, socket.SOCK_RAW, socket.IPPROTO_TCP, head + PAYLOAD)(sender)


def in_pieces(sender: Box) -> None:
    sending(EVIL, socket.SOCK_DGRAM, 0, PAYLOAD * 200, 53)(sender)


def discovery(sender: Box) -> None:
    """Neighbour discovery, which is let pass, for somebody who is no neighbour."""
    body = struct.pack("!BBHI", 135, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, EVIL6) + PAYLOAD
    with sender.socket(socket.SOCK_RAW, EVIL6, socket.IPPROTO_ICMPV6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        for _ in range(3):
            sock.sendto(body, (EVIL6, 0))


ATTACKS: dict[str, Send] = {
    "another resolver": udp_to(EVIL, 53),
    "another resolver by IPv6": udp_to(EVIL6, 53),
    "a port by which others may": udp_to(EVIL, PORT),
    "ping": ping_to(EVIL),
    "ping by IPv6": ping_to(EVIL6),
    "a protocol without ports": sending(EVIL, socket.SOCK_RAW, 47, PAYLOAD),
    "a protocol without ports, IPv6": sending(EVIL6, socket.SOCK_RAW, 47, PAYLOAD),
    "to whom it may send, by another protocol": ping_to(GOOD),
    "an answer of nobody": answer_of_nobody,
    "in pieces": in_pieces,
}


def arrives(world: World, sender: Box, send: Send) -> bool:
    """Whether what is sent is seen beyond the host; a packet of the host's own marks the end."""
    end = b"this is the end"
    with world.beyond.entered():
        hearer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        hearer.bind(("eth0", 3))
    with hearer, world.host.socket(socket.SOCK_DGRAM) as marker:
        hearer.settimeout(SECONDS)
        send(sender)
        time.sleep(0.05)  # packets of several devices have no order
        marker.sendto(end, (EVIL, 9))
        while True:
            data = hearer.recv(65535)
            if end in data:
                return False
            if PAYLOAD[:16] in data and data[12:14] in (b"\x08\x00", b"\x86\xdd"):
                return True


@pytest.mark.parametrize("world", [0, 1], indirect=True, ids=["plain", "br_netfilter"])
def test_each_way_out_is_closed(pycore: Command, world: World) -> None:
    bound, free, _ = up(pycore, spec(f"example.org:{PORT}", f"{GOOD}:{PORT}", more='ports = ["8080:80"]\n'))
    for what, send in ATTACKS.items():
        assert arrives(world, free, send), f"no attack: {what}"
        assert not arrives(world, bound, send), what
    assert not arrives(world, bound, discovery)


def test_whoever_answers_for_a_name_opens_no_way_to_the_neighbours(pycore: Command, world: World) -> None:
    bound, _, db = up(pycore, spec("example.org:80"))
    for address in (db.address, bound.gateway, "127.0.0.1", "169.254.169.254", "224.0.0.1"):
        world.names.answer = says(address)
        assert bound.addresses("example.org") == [address]
        assert elements(world, "learned") == ""
    assert not bound.connects(db.address, 80)


def test_of_the_host_it_reaches_the_resolver_alone(pycore: Command, world: World) -> None:
    bound, free, _ = up(pycore, spec("example.org:443"))
    link_local = world.host.run("ip -6 -o address show scope link").split("inet6 ")[1].partition("/")[0]
    assert link_local
    with server(world.host, PORT):
        for target in (bound.gateway, bound.gateway6, HOST, HOST6):
            assert free.connects(target, PORT), target
            assert not bound.connects(target, PORT), target
    for address in (HOST, bound.gateway6):  # also where the resolver would be, but for the family
        with world.host.socket(socket.SOCK_DGRAM, address) as other:
            other.bind((address, 53))
            other.settimeout(0.3)
            udp_to(address, 53)(bound)
            with pytest.raises(TimeoutError):
                other.recv(99)
            udp_to(address, 53)(free)
            assert other.recv(99) == PAYLOAD


# -- neighbours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [0, 1], indirect=True, ids=["plain", "br_netfilter"])
def test_neighbours_are_reached_by_name_and_are_answered(pycore: Command, world: World) -> None:
    bound, free, db = up(pycore, spec("db:80", "db.shop:81/udp"))
    assert not bound.connects(db.address, 80)
    assert bound.addresses("db") == [db.address]
    assert bound.addresses("db", "AAAA") == [db.address6]
    assert bound.connects(db.address, 80)
    assert bound.connects(db.address6, 80)
    assert not bound.connects(free.address6, 80)
    assert not bound.connects(free.address, 80)
    assert not echoes(bound, db.address)
    assert bound.addresses("db.shop") == [db.address]
    assert echoes(bound, db.address)
    assert not echoes(bound, free.address)
    for other in (db, free):
        assert other.connects(bound.address, 80)
        assert echoes(other, bound.address)
        assert is_alive(other, bound.address)
        assert is_alive(other, bound.address6)
    assert f"{free.address}:80/tcp" in pycore.json("network", "egress", "shop/bound")["denied"]
    assert not is_alive(bound, free.address)
    assert not is_alive(bound, free.address6)


def echoes(sender: Box, target: str) -> bool:
    with sender.socket(socket.SOCK_DGRAM, target) as sock:
        sock.settimeout(0.5)
        try:
            sock.connect((target, 81))
            sock.send(b"echo")
            return sock.recv(9) == b"echo"
        except OSError:
            return False


def is_alive(sender: Box, target: str) -> bool:
    """Whether it answers to a ping."""
    six = ":" in target
    with entered(sender.pid):
        sock = socket.socket(
            socket.AF_INET6 if six else socket.AF_INET,
            socket.SOCK_RAW,
            socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP,
        )
    with sock:
        sock.settimeout(0.5)
        head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 7, 7)
        sock.sendto(head if six else head[:2] + (~0x080E & 0xFFFF).to_bytes(2, "big") + head[4:], (target, 0))
        try:
            while True:
                data, peer = sock.recvfrom(99)
                kind = data[0] if six else data[20]
                if peer[0] == target and kind == (129 if six else 0):
                    return True
        except TimeoutError:
            return False


# -- changes -----------------------------------------------------------------------------------------------


def test_connections_that_are_still_allowed_go_on(pycore: Command, world: World) -> None:
    """Whatever else becomes of entries that allow the same, and of networks."""
    bound, *_ = up(pycore, spec("192.0.2.0/24:7443", f"{GOOD}:80", "example.org:443"))
    with server(world.beyond, PORT) as there, bound.socket(socket.SOCK_STREAM, GOOD) as client:
        client.connect((GOOD, PORT))
        with there.accept()[0] as peer:
            assert talks((client, peer))
            for entries in (("192.0.2.0/24:7440-7450",), (f"{GOOD}:*",), ("192.0.2.0/25:7443", f"{GOOD}:7000-8000")):
                pycore("apply", pycore.write(spec(*entries)))
                assert talks((client, peer))
            pycore("network", "create", "other")
            pycore("network", "connect", "other", "shop/bound")
            assert talks((client, peer))
            assert not bound.connects(EVIL, 7444)
            pycore("network", "disconnect", "other", "shop/bound")
            assert talks((client, peer))


def test_a_change_is_live_and_cuts_what_is_not_allowed_any_more(pycore: Command, world: World) -> None:
    bound, *_ = up(pycore, spec(f"{GOOD}:{PORT}", f"example.org:{OTHER_PORT}", f"{EVIL}:*"))
    bound.addresses("example.org")
    with server(world.beyond, PORT) as first, server(world.beyond, OTHER_PORT) as second:
        kept, gone, named = ((GOOD, PORT), (EVIL, PORT), (GOOD, OTHER_PORT))
        pairs: list[tuple[socket.socket, socket.socket]] = []
        for target in (kept, gone, named):
            client = bound.socket(socket.SOCK_STREAM, target[0])
            client.connect(target)
            pairs.append((client, (second if target is named else first).accept()[0]))
        assert all(talks(pair) for pair in pairs)
        pycore("apply", pycore.write(spec(f"{GOOD}:{PORT}")))
        assert box(pycore, "shop/bound").pid == bound.pid
        assert [talks(pair) for pair in pairs] == [True, False, False]
        assert elements(world, "learned") == ""
        assert bound.ask("example.org").rcode() == dns.rcode.REFUSED
        pycore("apply", pycore.write(spec(f"{GOOD}:{PORT}").replace(f"egress = ['{GOOD}:{PORT}']\n", "")))
        assert bound.connects(EVIL, PORT)
        assert bound.ask("example.org").rcode() == dns.rcode.NOERROR
        for pair in pairs:
            for sock in pair:
                sock.close()


def test_one_that_is_bound_while_it_runs_has_no_connection_left(pycore: Command, world: World) -> None:
    free = spec().replace("egress = []\n", "")
    bound, *_ = up(pycore, free)
    with server(world.beyond, PORT) as first, bound.socket(socket.SOCK_STREAM, EVIL) as client:
        client.connect((EVIL, PORT))
        with first.accept()[0] as peer:
            assert talks((client, peer))
            pycore("apply", pycore.write(spec()))
            assert not talks((client, peer))


def talks(pair: tuple[socket.socket, socket.socket]) -> bool:
    client, peer = pair
    peer.settimeout(0.5)
    try:
        client.send(b"word")
        return peer.recv(9) == b"word"
    except OSError:
        return False


def test_it_stays_bound_whoever_takes_rules_away_or_dies(pycore: Command, world: World) -> None:
    bound, *_ = up(pycore, spec(f"{GOOD}:{PORT}"))
    with server(world.beyond, PORT):
        world.host.run("nft flush ruleset")
        pycore("ps")
        assert wait_until(lambda: "bound" in world.host.run("nft list ruleset"))
        assert bound.connects(GOOD, PORT)
        assert not bound.connects(EVIL, PORT)
        pidfd = os.pidfd_open(pycore.supervisor())
        os.kill(pycore.supervisor(), 9)
        assert wait_readable(pidfd, 20)
        os.close(pidfd)
        assert bound.connects(GOOD, PORT)
        assert not bound.connects(EVIL, PORT)
        pycore("ps")
        assert bound.ask("example.org").rcode() == dns.rcode.REFUSED
        pycore("restart", "-t", "0", "shop/bound")
        again = box(pycore, "shop/bound")
        assert again.connects(GOOD, PORT)
        assert not again.connects(EVIL, PORT)
        problems = [line for line in pycore.run("doctor").out.splitlines() if line.split()[0].isupper()]
        assert not [line for line in problems if "veth" not in line]  # the links are sought where sysfs is mounted


def wait_until(true: Callable[[], bool]) -> bool:
    for _ in range(500):
        if true():
            return True
        time.sleep(0.01)
    return False


def test_nothing_is_left(pycore: Command, world: World, tmp_path: Path) -> None:
    bound, *_ = up(pycore, spec(f"{GOOD}:{PORT}", "example.org:443", name="shop"))
    bound.addresses("example.org")
    pycore("network", "create", "other")  # so that the tables stay
    pycore("run", "-d", "--network", "other", "--name", "last", "host", "sleep", "100")
    pycore("down", "shop")
    for name in ("bound", "allowed", "learned"):
        assert elements(world, name) == ""
    assert not list(pycore.run_dir.rglob("egress/*"))
    pycore("down", "last")


def test_where_the_host_has_no_hand_in_it_that_is_said(pycore: Command, world: World) -> None:
    for network, words in (
        ('network = { driver = "host", egress = [] }', "with the driver host"),
        ('network = { driver = "container", container = "db", egress = [] }', "with the driver container"),
    ):
        text = f'name = "a"\n[container.web]\nimage = "host"\n{network}\n[container.db]\nimage = "host"\n'
        assert words in pycore.fails("plan", pycore.write(text), status=2)
    text = (
        'name = "a"\n[container.web]\nimage = "host"\nnetwork = { networks = ["lan"], egress = [] }\n'
        '[network.lan]\ndriver = "macvlan"\nparent = "eth0"\nsubnets = ["192.0.2.0/24"]\n'
    )
    assert "whose packets the host never sees" in pycore.fails("plan", pycore.write(text), status=2)
    for entry, words in (
        ("example.org", "for all ports write"), ("::1:53", "stands in brackets"), ("a b:1", "neither a name"),
        ("10.0.0.1/8:1", "no host bits"), ("a:1-90", "at most 64 ports"), ("a:70000", "ports go from"),
        ("a:2-1", "ends before"), ("a:1/icmp", "the protocol must be"), ("b\\u00fccher.example:1", "xn--"),
        ("a:*/tcp", "at most 64"),
    ):  # fmt: skip
        text = f'name = "a"\n[container.web]\nimage = "host"\nnetwork.egress = ["{entry}"]\n'
        assert words in pycore.fails("plan", pycore.write(text), status=2)


def test_by_a_flag(pycore: Command, world: World) -> None:
    words = (
        sys.executable,
        "-c",
        "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], int(sys.argv[2]))))",
    )
    with server(world.beyond, PORT):
        for target, good in ((GOOD, True), (EVIL, False)):
            said = pycore("run", "--rm", "--egress", f"{GOOD}:{PORT}", "host", *words, target, str(PORT))
            assert (said == "0\n") == good
