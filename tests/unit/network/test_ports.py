"""Ports as the spec writes them."""

from __future__ import annotations

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore_network.elements import sources_of
from pycore_network.portentries import PortTable, parse, read
from pycore_network.ports import Ports, twice

numbers = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8080:80", Ports("tcp", "", 8080, 80)),
        ("8080:80/udp", Ports("udp", "", 8080, 80)),
        ("8080:80/sctp", Ports("sctp", "", 8080, 80)),
        ("[::1]:8080:80", Ports("tcp", "::1", 8080, 80)),
        ("[2001:DB8:0::1]:8080-8081:80-81/udp", Ports("udp", "2001:db8::1", 8080, 80, 2)),
        ("[::]:8080:80", Ports("tcp", "::", 8080, 80)),
        ("127.0.0.1:8080:80", Ports("tcp", "127.0.0.1", 8080, 80)),
        ("0.0.0.0:8080:80/tcp", Ports("tcp", "0.0.0.0", 8080, 80)),
        ("8000-8010:9000-9010", Ports("tcp", "", 8000, 9000, 11)),
        ("1:65535", Ports("tcp", "", 1, 65535)),
    ],
)
def test_what_can_be_written(text: str, wanted: Ports) -> None:
    assert parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("80", 'write "80:80"'),
        ("", "must look like"),
        ("a:80", "must look like"),
        (" 8080:80", "must look like"),
        ("8080:80/", "protocol"),
        ("8080:80/dccp", "protocol"),
        ("8080:80/TCP", "protocol"),
        ("0:80", "from 1 to 65535"),
        ("8080:65536", "from 1 to 65535"),
        ("9" * 5000 + ":80", "from 1 to 65535"),
        ("-1:80", "must look like"),
        ("٣:80", "must look like"),
        ("8010-8000:80-90", "before it begins"),
        ("8000-8010:80", "11 ports of the host cannot lead to 1"),
        ("1-65535:1-65535", "more than 1024"),
        ("localhost:8080:80", "no address of the host"),
        ("256.0.0.1:8080:80", "no address of the host"),
        ("::1:8080:80", "in brackets"),
        ("[::1:8080:80", "must look like"),
        ("[::1]8080:80", "must look like"),
        ("[fe80::1%eth0]:8080:80", "no address of the host"),
        ("[::ffff:10.0.0.1]:8080:80", "no address of the host"),
        ("224.0.0.1:8080:80", "no address of the host"),
    ],
)
def test_what_cannot(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        ports = parse(text)
    except ValueError:
        return
    assert 1 <= ports.host_port <= 65535
    assert 1 <= ports.port + ports.count - 1 <= 65535


@given(
    st.ip_addresses(v=4).filter(lambda address: not address.is_multicast),
    numbers,
    numbers,
    st.sampled_from(["tcp", "udp", "sctp"]),
)
def test_what_is_written_is_what_is_read(address: object, host: int, inside: int, protocol: str) -> None:
    assert parse(f"{address}:{host}:{inside}/{protocol}") == Ports(protocol, str(address), host, inside)


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("8080:80", "8080:81", 8080),
        ("8080:80", "127.0.0.1:8080:80", 8080),
        ("127.0.0.1:8080:80", "8080:80", 8080),
        ("8000-8010:0", "8010:80", 8010),
        ("8080:80", "8080:80/udp", None),
        ("127.0.0.1:8080:80", "127.0.0.2:8080:80", None),
        ("8080:80", "8081:80", None),
        ("8080:80", "[::1]:8080:80", 8080),
        ("[::]:8080:80", "[::1]:8080:80", 8080),
        ("0.0.0.0:8080:80", "[::]:8080:80", None),
        ("0.0.0.0:8080:80", "[::1]:8080:80", None),
    ],
)
def test_the_same_port_twice(one: str, other: str, clash: int | None) -> None:
    first = parse(one.replace(":0", ":1000-1010") if one.endswith(":0") else one)
    found = list(twice([(("first",), first), (("second",), parse(other))]))
    assert found == ([(("second",), clash, ("first",))] if clash else [])


def test_a_table_says_more() -> None:
    table = PortTable.model_validate(
        {"port": 80, "host_port": 8080, "host_ip": "127.0.0.1", "expose": "lan", "allow_from": ["10.1.0.0/16"]}
    )
    assert read(table) == Ports("tcp", "127.0.0.1", 8080, 80, 1, "lan", ("10.1.0.0/16",))
    assert read(PortTable(port="80-82", protocol="udp", proxy=True)) == Ports("udp", "", 80, 80, 3, proxy=True)


@pytest.mark.parametrize(
    "table",
    [
        {"port": 0}, {"port": "80-"}, {"port": True}, {"port": "80-90", "host_port": 80}, {"host_port": 80}, {},
        {"port": 80, "host_ip": "x"}, {"port": 80, "expose": "some"}, {"port": 80, "allow_from": ["10.0.0.1/8"]},
        {"port": 80, "protocol": "icmp"}, {"port": 80, "more": 1}, {"port": 80, "protocol": "sctp", "proxy": True},
    ],
)  # fmt: skip
def test_tables_that_cannot_be(table: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        PortTable.model_validate(table)


@pytest.mark.parametrize(
    ("ports", "shown"),
    [
        (Ports("tcp", "", 80, 81), "*:80->81/tcp"),
        (Ports("udp", "::1", 80, 81, 2), "[::1]:80-81->81-82/udp"),
        (Ports("tcp", "10.0.0.1", 80, 81, 1, "lan", ("10.0.0.0/8",)), "10.0.0.1:80->81/tcp (lan, 10.0.0.0/8)"),
    ],
)
def test_how_ports_are_shown(ports: Ports, shown: str) -> None:
    assert str(ports) == shown


@pytest.mark.parametrize(
    ("allowed", "version", "wanted"),
    [
        (("2001:db8::/32",), 6, ("2001:db8::/32",)),
        (("2001:db8::7/128",), 6, ("2001:db8::7",)),
        (("10.0.0.7/32", "10.1.0.0/16"), 4, ("10.0.0.7", "10.1.0.0/16")),
        (("10.0.0.0/8",), 6, ()),
    ],
)
def test_only_one_address_is_written_without_its_prefix(
    allowed: tuple[str, ...], version: int, wanted: tuple[str, ...]
) -> None:
    assert sources_of("all", allowed, version) == wanted
