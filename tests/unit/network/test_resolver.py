"""What containers are answered: names of each other, names of the world, and what they must not learn."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore_network.known import Known
from pycore_network.resolver import forward, wire
from pycore_network.resolver.timers import Timers
from pycore_network.resolver.turns import EACH, Turns
from pycore_network.resolver.upstream import HostServers, Servers
from support.resolving import SECONDS, Upstream, World, says

WEB, DB, OTHER, LONE = "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.9.1"
SUBNET, SUBNET6 = "127.0.1.0/24", "fd00:1::/64"


def known(app: str, name: str, *addresses: str, aliases: Sequence[str] = (), service: str = "") -> Known:
    return Known(app, (name, service) if service else (name,), tuple(aliases), addresses)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.network("shop_default", SUBNET, SUBNET6)
    world.join("shop_default", "w1", known("shop", "web", WEB, "fd00:1::1"))
    world.join("shop_default", "d1", known("shop", "db", DB, "fd00:1::2", aliases=["Database"]))
    yield world
    world.close()


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    made: list[Upstream] = []
    yield made
    for each in made:
        each.close()


# -- names of containers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["db", "DB", "db.", "db.shop", "database", "database.shop"])
def test_a_container_is_found_by_name_alias_and_with_its_app(world: World, name: str) -> None:
    answer = world.ask(WEB, name)
    assert [each.to_text() for each in answer.answer[0]] == [DB]
    assert answer.answer[0].ttl == 5
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA


def test_both_families_and_nothing_for_other_types(world: World) -> None:
    assert world.addresses(WEB, "db", "AAAA") == ["fd00:1::2"]
    for kind in ("MX", "TXT", "HTTPS"):
        answer = world.ask(WEB, "db", kind)
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert sorted(world.addresses(WEB, "db", "ANY")) == [DB, "fd00:1::2"]


def test_a_name_without_an_address_of_the_wanted_family_is_not_asked_for_elsewhere(
    world: World, upstreams: list[Upstream]
) -> None:
    upstreams.append(Upstream(says("192.0.2.1", "2001:db8::1")))
    world.servers = [upstreams[0].address]
    world.join("shop_default", "d1", known("shop", "db", DB))
    answer = world.ask(WEB, "db", "AAAA")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert upstreams[0].asked == []


def test_a_new_address_is_known_at_once_and_who_has_gone_is_not(world: World) -> None:
    assert world.addresses(WEB, "db") == [DB]
    world.join("shop_default", "d1", known("shop", "db", "127.0.1.77"))
    assert world.addresses(WEB, "db") == ["127.0.1.77"]
    world.leave("shop_default", "d1")
    assert world.ask(WEB, "db").rcode() == dns.rcode.SERVFAIL  # nobody is left to ask


def test_replicas_answer_in_turn(world: World) -> None:
    alike = [f"127.0.1.{number}" for number in (10, 11, 12)]
    for number, address in enumerate(alike, 1):
        world.join("shop_default", f"r{number}", known("shop", f"api-{number}", address, service="api"))
    seen = [world.addresses(WEB, "api") for _ in range(6)]
    assert [sorted(each) for each in seen] == [alike] * 6
    assert [each[0] for each in seen] == alike * 2
    assert world.addresses(WEB, "api-2") == [alike[1]]


def test_only_names_of_networks_that_the_asker_is_in(world: World) -> None:
    world.network("shop_back", "127.0.9.0/24")
    world.join("shop_back", "o1", known("shop", "hidden", LONE))
    assert world.ask(WEB, "hidden").rcode() == dns.rcode.SERVFAIL
    assert world.ask(WEB, "1.9.0.127.in-addr.arpa", "PTR").rcode() == dns.rcode.SERVFAIL
    world.join("shop_back", "w1", known("shop", "web", "127.0.9.7"))
    assert world.addresses(WEB, "hidden") == [LONE]
    assert world.addresses(LONE, "web") == ["127.0.9.7"]  # not the address in the network that it is not in


def test_of_two_apps_in_one_network_each_means_its_own(world: World) -> None:
    world.join("shop_default", "o1", known("blog", "db", OTHER))
    assert world.addresses(WEB, "db") == [DB]
    assert world.addresses(OTHER, "db") == [OTHER]
    assert world.addresses(OTHER, "web") == [WEB]
    assert world.addresses(WEB, "db.blog") == [OTHER]


def test_an_address_has_a_name(world: World) -> None:
    names = world.addresses(WEB, "2.1.0.127.in-addr.arpa", "PTR")
    assert names == ["db.shop."]
    six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"
    assert world.addresses(WEB, six, "PTR") == ["db.shop."]
    assert world.ask(WEB, "99.1.0.127.in-addr.arpa", "PTR").rcode() == dns.rcode.NXDOMAIN


def test_a_stranger_is_told_nothing(world: World) -> None:
    assert world.ask("127.0.0.1", "db").rcode() == dns.rcode.REFUSED
    assert world.ask("127.0.0.1", "example.org").rcode() == dns.rcode.REFUSED


def test_a_network_of_another_versions_words_harms_no_other(world: World) -> None:
    odd = world.run_dir / "networks" / "odd"
    (odd / "names").mkdir(parents=True)
    (odd / "names" / "x").write_text("{}")
    (odd / "network.json").write_text("[")
    world.running.changed()
    assert world.addresses(WEB, "db") == [DB]


# -- sizes -----------------------------------------------------------------------------------------------


def test_what_has_no_room_is_cut_and_comes_whole_by_tcp(world: World) -> None:
    for number in range(100):
        world.join("shop_default", f"r{number}", known("shop", f"api-{number}", f"127.0.2.{number}", service="api"))
    cut = world.ask(WEB, "api")
    assert cut.flags & dns.flags.TC
    assert len(cut.to_wire()) <= 512
    assert len(world.ask(WEB, "api", payload=4096).answer[0]) == 100
    whole = world.ask(WEB, "api", tcp=True)
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 100


# -- the world -------------------------------------------------------------------------------------------


def test_what_is_not_known_here_is_asked_for_elsewhere(world: World, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(says("192.0.2.1", "192.0.2.2")))
    world.servers = [upstreams[0].address]
    assert world.addresses(WEB, "example.org") == ["192.0.2.1", "192.0.2.2"]
    assert world.ask(WEB, "example.org", tcp=True).answer
    assert [stream for _, _, stream in upstreams[0].asked] == [False, True]


def test_each_query_goes_out_under_another_id_and_port(world: World, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(says("192.0.2.1")))
    world.servers = [upstreams[0].address]
    query = dns.message.make_query("example.org", "A", id=7)
    for _ in range(20):
        assert dns.query.udp(query, "127.0.0.1", timeout=SECONDS, port=world.port, source=WEB).id == 7
    assert len({data[:2] for data, _, _ in upstreams[0].asked}) > 15
    assert len({port for _, port, _ in upstreams[0].asked}) > 15


def test_a_server_that_cannot_tell_or_is_not_there_is_passed_over(world: World, upstreams: list[Upstream]) -> None:
    def fails(query: bytes, stream: bool) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(query))
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = taken.getsockname()
    upstreams += [Upstream(fails), Upstream(says("192.0.2.1"))]
    world.servers = [nobody, *(each.address for each in upstreams)]
    assert world.addresses(WEB, "example.org") == ["192.0.2.1"]
    world.servers = [nobody, upstreams[0].address]
    assert world.ask(WEB, "example.org").rcode() == dns.rcode.SERVFAIL


def test_a_silent_server_costs_a_moment_once(
    world: World, upstreams: list[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "TRY", 0.01)
    upstreams += [Upstream(lambda *_: None), Upstream(says("192.0.2.1"))]
    world.servers = [each.address for each in upstreams]
    assert world.addresses(WEB, "a.example") == ["192.0.2.1"]
    silent = len(upstreams[0].asked)
    assert world.addresses(WEB, "b.example") == ["192.0.2.1"]
    assert len(upstreams[0].asked) == silent


def test_where_nobody_answers_the_container_is_told(
    world: World, upstreams: list[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "TRY", 0.01)
    monkeypatch.setattr(forward, "GIVE_UP", 0.05)
    upstreams.append(Upstream(lambda *_: None))
    world.servers = [upstreams[0].address]
    assert world.ask(WEB, "example.org").rcode() == dns.rcode.SERVFAIL
    assert world.ask(WEB, "example.org", tcp=True).rcode() == dns.rcode.SERVFAIL


def test_answers_to_what_was_not_asked_are_not_believed(world: World, upstreams: list[Upstream]) -> None:
    """Each wrong in one thing; only what comes last is right."""

    class Lying(Upstream):
        def _datagrams(self) -> None:
            while True:
                query, peer = self.udp.recvfrom(65535)
                if query == b"end":
                    return
                right, lie = says("192.0.2.1")(query, False), says("203.0.113.66")
                assert right
                forged = lie(query, False)
                other = lie(dns.message.make_query("example.com", "A").to_wire(), False)
                assert forged
                assert other
                wrong_id = bytes([query[0] ^ 1, query[1]]) + forged[2:]
                for each in (wrong_id, query[:2] + other[2:], query, forged[:5], right):
                    self.udp.sendto(each, peer)
                self.elsewhere(query, forged, peer)

        def elsewhere(self, query: bytes, forged: bytes, peer: tuple[str, int]) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(forged, peer)

    upstreams.append(Lying(lambda *_: None))
    world.servers = [upstreams[0].address]
    for _ in range(10):
        assert world.addresses(WEB, "example.org") == ["192.0.2.1"]


def test_a_long_answer_comes_whole_where_there_is_room(world: World, upstreams: list[Upstream]) -> None:
    many = [f"192.0.2.{number}" for number in range(120)]
    full = says(*many)

    def stingy(query: bytes, stream: bool) -> bytes | None:
        """As servers do that send no more than 1,232 bytes in a datagram."""
        if stream:
            return full(query, stream)
        response = dns.message.make_response(dns.message.from_wire(query))
        response.flags |= dns.flags.TC
        return response.to_wire()

    upstreams.append(Upstream(stingy))
    world.servers = [upstreams[0].address]
    assert world.ask(WEB, "example.org").flags & dns.flags.TC
    assert [stream for _, _, stream in upstreams[0].asked] == [False]
    assert len(world.ask(WEB, "example.org", payload=4096).answer[0]) == 120
    assert len(world.ask(WEB, "example.org", tcp=True).answer[0]) == 120


def test_more_than_the_container_has_room_for_is_cut_here(world: World, upstreams: list[Upstream]) -> None:
    full = says(*(f"192.0.2.{number}" for number in range(120)))
    upstreams.append(Upstream(lambda query, _: full(query, True)))
    world.servers = [upstreams[0].address]
    answer = world.ask(WEB, "example.org")
    assert answer.flags & dns.flags.TC
    assert answer.answer == []


def test_who_has_no_way_out_asks_nobody_outside(world: World, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(says("192.0.2.1")))
    world.servers = [upstreams[0].address]
    world.network("shop_default", SUBNET, SUBNET6, internal=True)
    assert world.ask(WEB, "example.org").rcode() == dns.rcode.REFUSED
    assert world.addresses(WEB, "db") == [DB]
    assert upstreams[0].asked == []
    world.network("shop_open", "127.0.9.0/24")
    world.join("shop_open", "w1", known("shop", "web", "127.0.9.7"))
    assert world.addresses(WEB, "example.org") == ["192.0.2.1"]


# -- the policy ------------------------------------------------------------------------------------------


class Strict:
    """Binds ``w1`` to a few names, and writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, tuple[str, ...], int]] = []

    def renew(self) -> None:
        pass

    def binds(self, container: str) -> bool:
        return container == "w1"

    def may_ask(self, container: str, name: str) -> bool:
        return name in ("example.org", "db")

    def answered(self, container: str, name: str, addresses: Sequence[str], ttl: int) -> None:
        self.told.append((container, name, tuple(addresses), ttl))


def test_who_is_bound_asks_what_it_may_and_the_answer_is_told_first(tmp_path: Path, upstreams: list[Upstream]) -> None:
    policy = Strict()
    world = World(tmp_path, policy)
    try:
        world.network("shop_default", SUBNET)
        world.join("shop_default", "w1", known("shop", "web", WEB))
        world.join("shop_default", "d1", known("shop", "db", DB, aliases=["cache"]))
        upstreams.append(Upstream(says("192.0.2.1", ttl=77)))
        world.servers = [upstreams[0].address]
        for kind in ("A", "TXT"):
            assert world.ask(WEB, "secret.example.com", kind).rcode() == dns.rcode.REFUSED
        assert world.ask(WEB, "cache").rcode() == dns.rcode.REFUSED
        assert policy.told == []
        assert upstreams[0].asked == []
        assert world.addresses(WEB, "EXAMPLE.org") == ["192.0.2.1"]
        assert world.addresses(WEB, "db") == world.addresses(WEB, "db") == [DB]
        assert policy.told == [("w1", "example.org", ("192.0.2.1",), 77), *[("w1", "db", (DB,), 5)] * 2]
        policy.told.clear()
        assert world.addresses(DB, "example.net") == ["192.0.2.1"]
        assert policy.told == []
    finally:
        world.close()


def test_what_is_learned_follows_aliases_and_the_shortest_time() -> None:
    query = dns.message.make_query("example.org", "A")
    response = dns.message.make_response(query)
    for text in (
        "example.org. 300 IN CNAME cdn.example.net.",
        "cdn.example.net. 60 IN A 192.0.2.1",
        "other.example. 60 IN A 203.0.113.9",
    ):
        name, ttl, *rest = text.split()
        response.answer.append(dns.rrset.from_text(name, int(ttl), *rest))
    assert wire.learned(response.to_wire()) == wire.Learned(("192.0.2.1",), 60)


# -- what anybody may send -------------------------------------------------------------------------------


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_read(data: bytes, stream: bool) -> None:
    found = wire.read(data, stream=stream)
    if isinstance(found, bytes):
        assert found[:2] == data[:2]
        assert found[2] & 0x80
    wire.learned(data)


@given(st.data())
def test_a_sound_query_with_some_bytes_changed_is_read(data: st.DataObject) -> None:
    query = bytearray(dns.message.make_query("db.shop", "A", use_edns=0, payload=1232).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        query[data.draw(st.integers(0, len(query) - 1))] = data.draw(st.integers(0, 255))
    found = wire.read(bytes(query), stream=False)
    if isinstance(found, wire.Query):
        for answer in (
            wire.addresses(found, found.wanted(["192.0.2.1", "fd00::1"]), 5), wire.pointers(found, ["a.b"], 5),
            wire.missing(found), wire.refused(found), wire.failed(found), wire.cut(found),
        ):  # fmt: skip
            assert answer[:2] == bytes(query[:2])
            assert answer[2] & 0x80
        wire.reversed_address(found)


@given(st.binary(max_size=600))
def test_any_bytes_are_no_answer_unless_they_fit(data: bytes) -> None:
    query = wire.read(dns.message.make_query("example.org", "A").to_wire(), stream=False)
    assert isinstance(query, wire.Query)
    if wire.answers(data, query, b"\x01\x02"):
        assert data[:2] == b"\x01\x02"
        wire.has_failed(data)
        wire.is_cut(data)


def test_rubbish_does_not_end_it_by_udp_or_tcp(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((WEB, 0))
        for size in range(200):
            sock.sendto(os.urandom(size), ("127.0.0.1", world.port))
    for data in (b"", b"\0", b"\0\0", b"\xff\xff" + os.urandom(100), b"\0\x05abcde", os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", world.port), source_address=(WEB, 0)) as sock:
            sock.sendall(data)
    assert world.addresses(DB, "web") == [WEB]  # of who sent so much, some is lost


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda query: query.set_opcode(dns.opcode.UPDATE), dns.rcode.NOTIMP),
        (lambda query: query.use_edns(1), dns.rcode.BADVERS),
        (lambda query: query.question.clear(), dns.rcode.FORMERR),
    ],
)
def test_what_cannot_be_answered_is_told(world: World, change: object, code: int) -> None:
    query = dns.message.make_query("db", "A")
    change(query)  # type: ignore[operator]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind((WEB, 0))
        sock.sendto(query.to_wire(), ("127.0.0.1", world.port))
        assert dns.message.from_wire(sock.recv(600)).rcode() == code


# -- bounds ----------------------------------------------------------------------------------------------


def test_queries_of_one_connection_are_answered_in_any_number(world: World) -> None:
    queries = [dns.message.make_query("db", "A", id=number).to_wire() for number in range(500)]
    with socket.create_connection(("127.0.0.1", world.port), source_address=(WEB, 0)) as sock:
        sock.settimeout(SECONDS)
        sending = threading.Thread(
            target=sock.sendall, args=(b"".join(len(each).to_bytes(2, "big") + each for each in queries),)
        )
        sending.start()
        with sock.makefile("rb") as file:
            ids = [
                int.from_bytes(file.read(int.from_bytes(file.read(2), "big"))[:2], "big") for _ in range(len(queries))
            ]
        sending.join()
    assert sorted(ids) == list(range(500))


def test_one_address_has_so_many_connections_and_others_theirs(world: World) -> None:
    held = [
        socket.create_connection(("127.0.0.1", world.port), timeout=SECONDS, source_address=(WEB, 0)) for _ in range(40)
    ]
    try:
        assert world.ask(DB, "web", tcp=True).answer
        closed = 0
        for sock in held:
            sock.settimeout(SECONDS if closed < 24 else 0.01)
            try:
                closed += sock.recv(1) == b""
            except ConnectionResetError:
                closed += 1
            except TimeoutError:
                break
    finally:
        for sock in held:
            sock.close()
    assert world.ask(WEB, "db", tcp=True).answer


def test_a_container_has_so_many_queries_under_way_and_others_theirs(
    world: World, upstreams: list[Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MOST_EACH", 4)
    release = threading.Event()
    answer = says("192.0.2.1")

    def slowly(query: bytes, stream: bool) -> bytes | None:
        return answer(query, stream) if release.is_set() else None

    upstreams.append(Upstream(slowly))
    world.servers = [upstreams[0].address]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind((WEB, 0))
        for number in range(5):
            name = f"n{number}.example.org"
            sock.sendto(dns.message.make_query(name, "A", id=number).to_wire(), ("127.0.0.1", world.port))
        refused = dns.message.from_wire(sock.recv(600))
        assert (refused.id, refused.rcode()) == (4, dns.rcode.SERVFAIL)
        release.set()
        assert world.addresses(DB, "example.org") == ["192.0.2.1"]


def test_every_source_has_its_turn() -> None:
    turns, done = Turns(), list[str]()

    def note(word: str) -> None:
        done.append(word)

    kept = [turns.put("flood", lambda: note("flood")) for _ in range(EACH * 3)]
    assert kept.count(True) == EACH
    turns.put("quiet", lambda: note("quiet"))
    turns.serve()
    assert "quiet" in done[:2]
    while turns.waiting:
        turns.serve()
    assert done.count("flood") == EACH


def test_timers_are_done_in_their_order_and_not_when_cancelled() -> None:
    now, done = [0.0], list[int]()
    timers = Timers(lambda: now[0])
    timers.after(2, lambda: done.append(2))
    first = timers.after(1, lambda: done.append(1))
    timers.after(3, lambda: done.append(3))
    first.cancel()
    assert timers.next() == 2
    now[0] = 2.5
    timers.run_due()
    assert done == [2]
    assert timers.next() == 3


# -- whom to ask -----------------------------------------------------------------------------------------


def test_the_hosts_servers_are_read_anew_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    host = HostServers(str(file))
    assert [each[0] for each in host.now()] == ["127.0.0.1"]
    file.write_text(
        "# by hand\nsearch example.org\nnameserver\t192.0.2.53\nnameserver 2001:db8::53\nnameserver rubbish\n"
    )
    assert [each[:2] for each in host.now()] == [("192.0.2.53", 53), ("2001:db8::53", 53)]
    (tmp_path / "new").write_text("nameserver 192.0.2.54\n")
    (tmp_path / "new").rename(file)
    assert [each[0] for each in host.now()] == ["192.0.2.54"]
    file.unlink()
    assert [each[0] for each in host.now()] == ["192.0.2.54"]


def test_a_containers_own_servers_come_before_the_hosts(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.53\n")
    servers = Servers(tmp_path, HostServers(str(file)))
    assert [each[0] for each in servers.of("w1")] == ["192.0.2.53"]
    own = tmp_path / "containers" / "w1" / "names"
    own.mkdir(parents=True)
    (own / "servers").write_text("198.51.100.1\n198.51.100.2\n")
    assert [each[0] for each in servers.of("w1")] == ["198.51.100.1", "198.51.100.2"]
