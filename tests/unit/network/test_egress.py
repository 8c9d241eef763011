"""What entries of ``egress`` mean, and what becomes of answers; on no kernel, or on the fake one."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.hookspecs import Host
from pycore.ops import Context, to_record
from pycore.testing.fake import FakeKernel
from pycore_network import ruleset
from pycore_network.egress import pycore_leftovers
from pycore_network.egress.boxes import Box, boxes
from pycore_network.egress.entries import Entry, parse
from pycore_network.egress.policy import GRACE, LONGEST, MOST, Egress
from pycore_network.ops.egress import DIRECTORY, AllowName, AllowNetwork, Bind, all_in

RUN = "/run/here"
WHO = (f"{RUN}/{DIRECTORY}", "here", "w1", "shop/web", ("10.208.0.7", "fd00::7"))
TABLE = "bridge here"


@pytest.fixture
def kernel() -> FakeKernel:
    made = FakeKernel()
    made.mkdir(f"{RUN}/networks")
    made.nft(ruleset.create("here"))
    return made


def found(kernel: FakeKernel, place: str) -> set[str]:
    return set(kernel.nft_elements(TABLE, place))


# -- entries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("Example.ORG.:443", Entry("example.org", (), "tcp", (443, 443))),
        ("*.example.org:53/udp", Entry("*.example.org", (), "udp", (53, 53))),
        ("db:*", Entry("db", (), "", (0, 65535))),
        ("10.0.0.0/8:*", Entry("", ("10.0.0.0/8",), "", (0, 65535))),
        ("10.0.0.1:8000-9000/sctp", Entry("", ("10.0.0.1/32",), "sctp", (8000, 9000))),
        ("[2001:db8::/32]:*/tcp", Entry("", ("2001:db8::/32",), "tcp", (0, 65535))),
        ("*:443", Entry("", ("0.0.0.0/0", "::/0"), "tcp", (443, 443))),
    ],
)
def test_entries_are_read(text: str, entry: Entry) -> None:
    assert parse(text) == entry


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":80", "a", "a:", "a:0", "a:65536", "a:80-", "a:-80", "a:9-8", "a:8/", "a:8/icmp", "a:80,81", "a..b:1",
        "*.:1", "*a:1", "a*.b:1", "::1:80", "[::1]", "[::1]:", "[10.0.0.1]:80", "[a]:80", "10.0.0.1/8:80", "1.2.3:80",
        "1.2.3.4.5:80", "http://a:80", "a b:80", "-a:80", f"{'a' * 64}:1", f"{'a.' * 127}a:80", "a:1-65/udp", "a:*/tcp",
        "fe80::1%eth0:80", "a:\u0661", "a:" + "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_entry_or_refused(text: str) -> None:
    try:
        entry = parse(text)
    except ValueError:
        return
    assert bool(entry.name) != bool(entry.networks)
    assert entry.ports[0] <= entry.ports[1]


# -- boxes -------------------------------------------------------------------------------------------------

PORTS = st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda pair: (min(pair), max(pair)))
NETWORKS = st.tuples(st.integers(0, 15), st.integers(28, 32)).map(
    lambda pair: str(ip_network((0x0A000000 + pair[0], pair[1]), strict=False))
)
ENTRIES = st.lists(
    st.one_of(
        st.tuples(NETWORKS, PORTS).map(lambda pair: Entry("", (pair[0],), "tcp", pair[1])),
        NETWORKS.map(lambda network: Entry("", (network,), "", (0, 65535))),
    ),
    max_size=7,
)


@given(ENTRIES)
def test_boxes_allow_what_entries_do_and_never_meet(entries: list[Entry]) -> None:
    made = boxes(entries)
    for number in range(16):
        address = IPv4Address(0x0A000000 + number)
        for port in range(14):
            hit = [box for box in made if box.protocol and holds(box, address, port)]
            free = [box for box in made if not box.protocol and address in ip_network(box.network)]
            assert len(hit) <= 1
            assert len(free) <= 1
            wanted = any(
                address in ip_network(each.networks[0])
                and (not each.protocol or each.ports[0] <= port <= each.ports[1])
                for each in entries
            )
            assert bool(hit or free) == wanted


def holds(box: Box, address: IPv4Address, port: int) -> bool:
    return address in ip_network(box.network) and box.first <= port <= box.last


# -- operations --------------------------------------------------------------------------------------------


def test_what_is_kept_says_what_was_done(kernel: FakeKernel) -> None:
    done = [
        AllowNetwork(*WHO, "10.0.0.0/8", "tcp", 80, 90),
        AllowNetwork(*WHO, "2001:db8::1/128", "", 0, 65535),
        AllowName(*WHO, "example.org", "udp", 53, 53),
        Bind(*WHO, "pcw1"),
    ]
    ctx = Context(kernel)
    for each in done:
        assert each.probe(ctx) is False
        each.do(ctx)
        each.do(ctx)
        assert each.probe(ctx) is True
        assert each.explain()
    assert {each.path for each in all_in(kernel, WHO[0])} == {each.path for each in done}
    assert sorted(map(repr, all_in(kernel, WHO[0]))) == sorted(map(repr, done))
    assert found(kernel, "bound") == {'"pcw1"'}
    assert found(kernel, "allowed") == {"10.208.0.7 . 10.0.0.0/8 . tcp . 80-90"}
    assert found(kernel, "allowed6_any") == {"fd00::7 . 2001:db8::1"}
    assert len({str(to_record(each)) for each in done}) == len(done)
    for each in done:
        each.undo(ctx)
        each.undo(ctx)
    assert kernel.listdir(WHO[0]) == []
    assert not any(found(kernel, place) for place in ("bound", "allowed", "allowed6_any"))


def test_a_file_that_says_anything_else_is_left_alone(kernel: FakeKernel) -> None:
    kernel.mkdir(WHO[0])
    for number, text in enumerate(("", "[]", "{}", '{"kind": "Bind"}', '{"kind": "Rm", "addresses": []}', "null\n")):
        kernel.create(f"{WHO[0]}/{number}", text)
    assert list(all_in(kernel, WHO[0])) == []
    policy = Egress(kernel, RUN, "here")
    policy.renew()
    assert not policy.binds("w1")


def test_what_no_container_has_is_taken_back(kernel: FakeKernel) -> None:
    known, lost = Bind(*WHO, "pcw1"), AllowName(*WHO, "example.org", "tcp", 443, 443)
    for each in (known, lost):
        each.do(Context(kernel))
    host = Host(kernel, Path(RUN), Path("/var/lib/here"))
    assert list(pycore_leftovers(host, [known])) == [lost]


# -- the policy --------------------------------------------------------------------------------------------


@pytest.fixture
def policy(kernel: FakeKernel) -> Egress:
    for each in (
        AllowName(*WHO, "example.org", "tcp", 443, 444),
        AllowName(*WHO, "*.example.net", "", 0, 65535),
        Bind(*WHO, "pcw1"),
    ):
        each.do(Context(kernel))
    made = Egress(kernel, RUN, "here")
    made.renew()
    return made


def test_names_that_may_be_asked_for(policy: Egress) -> None:
    assert policy.binds("w1")
    assert not policy.binds("w2")
    names = (
        "example.org",
        "a.example.net",
        "a.b.example.net",
        "example.net",
        "aexample.net",
        "www.example.org",
        "",
        "org",
    )
    assert [name for name in names if policy.may_ask("w1", name)] == ["example.org", "a.example.net", "a.b.example.net"]


def test_an_answer_allows_its_addresses_for_its_time(kernel: FakeKernel, policy: Egress) -> None:
    policy.answered("w1", "example.org", ["192.0.2.1", "2001:db8::1"], 60)
    assert found(kernel, "learned") == {f"10.208.0.7 . 192.0.2.1 . tcp . {port}" for port in (443, 444)}
    assert found(kernel, "learned6") == {f"fd00::7 . 2001:db8::1 . tcp . {port}" for port in (443, 444)}
    policy.answered("w1", "x.example.net", ["192.0.2.9"], 60)
    assert found(kernel, "learned_any") == {"10.208.0.7 . 192.0.2.9"}


def test_what_is_known_for_long_enough_is_not_put_in_again(
    kernel: FakeKernel, policy: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[int] = []

    def renew(kernel: FakeKernel, table: str, wanted: Sequence[object], time: int) -> None:
        seconds.extend([time] if wanted else [])

    monkeypatch.setattr("pycore_network.ops.rules.renew", renew)
    for ttl in (60, 60, 60 + GRACE + 1, 0, 1 << 31):
        policy.answered("w1", "example.org", ["192.0.2.1"], ttl)
    assert seconds == [60 + GRACE, 60 + 2 * GRACE + 1, LONGEST + GRACE]
    policy.renew()
    policy.answered("w1", "example.org", ["192.0.2.1"], 60)
    assert len(seconds) == 3
    AllowName(*WHO, "example.com", "tcp", 1, 1).do(Context(kernel))
    policy.renew()
    policy.answered("w1", "example.org", ["192.0.2.1"], 60)
    assert len(seconds) == 4


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "ff02::1", "::"]
)
def test_some_addresses_are_never_allowed(kernel: FakeKernel, policy: Egress, address: str) -> None:
    policy.answered("w1", "example.org", [address], 60)
    assert not found(kernel, "learned")
    assert not found(kernel, "learned6")


def test_whoever_answers_for_a_name_fills_nothing(kernel: FakeKernel, policy: Egress) -> None:
    for start in range(0, MOST + 200, 100):
        policy.answered("w1", "a.example.net", [str(ip_address(0xC6120000 + start + each)) for each in range(100)], 60)
    assert len(found(kernel, "learned_any")) == MOST


def test_rules_that_are_gone_allow_nothing_and_end_nobody(
    kernel: FakeKernel, policy: Egress, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.nft(ruleset.delete("here"))
    for _ in range(2):
        policy.answered("w1", "example.org", ["192.0.2.1"], 60)
    assert capsys.readouterr().err.count("could not be allowed") == 1
    kernel.nft(ruleset.create("here"))
    policy.answered("w1", "example.org", ["192.0.2.1"], 60)
    assert found(kernel, "learned")
