"""Port strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore_network.ports import Ports, parse, twice

numbers = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8080:80", Ports("tcp", "0.0.0.0", 8080, 80)),
        ("8080:80/udp", Ports("udp", "0.0.0.0", 8080, 80)),
        ("127.0.0.1:8080:80", Ports("tcp", "127.0.0.1", 8080, 80)),
        ("0.0.0.0:8080:80/tcp", Ports("tcp", "0.0.0.0", 8080, 80)),
        ("8000-8010:9000-9010", Ports("tcp", "0.0.0.0", 8000, 9000, 11)),
        ("1:65535", Ports("tcp", "0.0.0.0", 1, 65535)),
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
        ("8080:80/sctp", "protocol"),
        ("8080:80/TCP", "protocol"),
        ("0:80", "from 1 to 65535"),
        ("8080:65536", "from 1 to 65535"),
        ("9" * 5000 + ":80", "from 1 to 65535"),
        ("-1:80", "must look like"),
        ("٣:80", "must look like"),
        ("8010-8000:80-90", "before it begins"),
        ("8000-8010:80", "11 ports of the host cannot lead to 1"),
        ("1-65535:1-65535", "more than 1024"),
        ("localhost:8080:80", "no IPv4 address"),
        ("256.0.0.1:8080:80", "no IPv4 address"),
        ("[::1]:8080:80", "IPv6"),
        ("::1:8080:80", "IPv6"),
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


@given(st.ip_addresses(v=4), numbers, numbers, st.sampled_from(["tcp", "udp"]))
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
    ],
)
def test_the_same_port_twice(one: str, other: str, clash: int | None) -> None:
    first = parse(one.replace(":0", ":1000-1010") if one.endswith(":0") else one)
    found = list(twice([(("first",), first), (("second",), parse(other))]))
    assert found == ([(("second",), clash, ("first",))] if clash else [])
