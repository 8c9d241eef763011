"""Keys and values of nftables: the words of nft and the bytes of the kernel."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycore.linux.nfttypes import Field, after, before, decode, encode, fields

INTEGER, IPV4, IPV6, ETHER, PROTOCOL, SERVICE, DEVICE = 4, 7, 8, 9, 12, 13, 41
SIZES = {INTEGER: 16, IPV4: 4, IPV6: 16, ETHER: 6, PROTOCOL: 1, SERVICE: 2, DEVICE: 16}
PORTS = st.integers(0, 0xFFFF)


def parts(*types: int) -> tuple[Field, ...]:
    """As the kernel tells of a set of these types."""
    number = 0
    for each in types:
        number = number << 6 | each
    if len(types) == 1:
        return fields(number, SIZES[types[0]])
    return fields(number, sum(SIZES[each] + 3 & ~3 for each in types))


def row(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


WORDS: dict[int, st.SearchStrategy[str]] = {
    INTEGER: st.integers(0, (1 << 128) - 1).map(hex),
    IPV4: st.ip_addresses(v=4).map(str),
    IPV6: st.ip_addresses(v=6).map(str).filter(lambda text: "ffff" not in text),
    ETHER: st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":")),
    PROTOCOL: st.sampled_from(["tcp", "udp", "sctp", "icmp", "ipv6-icmp", "0", "2", "255"]),
    SERVICE: PORTS.map(str),
    DEVICE: st.text("az09.@_-", min_size=1, max_size=15).map(lambda name: f'"{name}"'),
}
"""Addresses of IPv4 within IPv6 are left out: this module writes them as the C library does, Python does not."""
RANGES: dict[int, st.SearchStrategy[str]] = {
    IPV4: st.tuples(st.ip_addresses(v=4), st.integers(0, 31)).map(lambda it: str(ip_network(it, strict=False))),
    IPV6: st.tuples(st.ip_addresses(v=6), st.integers(0, 96))
    .map(lambda it: str(ip_network(it, strict=False)))
    .filter(lambda text: "ffff" not in text),
    SERVICE: st.tuples(PORTS, PORTS).map(lambda it: row(min(it), max(it))),
}


@st.composite
def keys(draw: st.DrawFn, *, ranges: bool) -> tuple[tuple[Field, ...], str]:
    types = draw(st.lists(st.sampled_from([each for each in WORDS if each != INTEGER]), min_size=1, max_size=5))
    types += [INTEGER] * draw(st.booleans())
    words = [draw(WORDS[each] | RANGES[each] if ranges and each in RANGES else WORDS[each]) for each in types]
    return parts(*types), " . ".join(words)


@settings(deadline=None)
@given(keys(ranges=False))
def test_one_thing_there_and_back(key: tuple[tuple[Field, ...], str]) -> None:
    of, text = key
    first, last = encode(of, text)
    assert first == last
    assert len(first) == sum(each.room for each in of)
    assert decode(of, first, last) == text


@settings(deadline=None)
@given(keys(ranges=True))
def test_ranges_there_and_back(key: tuple[tuple[Field, ...], str]) -> None:
    of, text = key
    first, last = encode(of, text)
    assert len(first) == len(last)
    assert first <= last
    assert decode(of, first, last) == text


@settings(deadline=None)
@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_a_range_of_addresses_is_a_network_where_it_is_one(one: object, other: object) -> None:
    of = parts(IPV4)
    ends = sorted((encode(of, str(one))[0], encode(of, str(other))[0]))
    text = decode(of, *ends)
    assert encode(of, text) == tuple(ends)
    if "/" in text:
        network = ip_network(text)
        assert (network[0].packed, network[-1].packed) == tuple(ends)


@pytest.mark.parametrize(
    ("types", "text", "first", "last"),
    [
        ((PROTOCOL, SERVICE), "tcp . 80", "06000000 00500000", ""),
        ((SERVICE,), "80", "0050", ""),
        ((SERVICE,), "1000-2000", "03e8", "07d0"),
        ((IPV4, SERVICE), "10.1.2.3 . 53", "0a010203 00350000", ""),
        ((IPV4,), "10.1.2.3/24", "0a010200", "0a0102ff"),
        ((IPV4,), "0.0.0.0/0", "00000000", "ffffffff"),
        ((IPV6,), "fe80::/10", "fe80" + 28 * "0", "febf" + 28 * "f"),
        ((DEVICE, ETHER), '"pc1" . 02:00:00:00:00:ff', "706331" + 26 * "0" + " 0200000000ff0000", ""),
        ((PROTOCOL, INTEGER), "17 . 0x102", "11000000" + 28 * "0" + "0102", ""),
        ((IPV4, SERVICE), "10.0.0.0/8 . 1-2", "0a000000 00010000", "0affffff 00020000"),
    ],
)
def test_bytes(types: tuple[int, ...], text: str, first: str, last: str) -> None:
    assert encode(parts(*types), text) == (bytes.fromhex(first), bytes.fromhex(last or first))


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ((PROTOCOL,), "256"),
        ((PROTOCOL,), "-1"),
        ((PROTOCOL,), "TCP"),
        ((SERVICE,), "65536"),
        ((SERVICE,), "2-1"),
        ((SERVICE,), "1-"),
        ((SERVICE,), ""),
        ((SERVICE,), "1 . 2"),
        ((IPV4,), "10.0.0.0/33"),
        ((IPV4,), "10.0.0.0/-1"),
        ((IPV4,), "10.0.0"),
        ((IPV4,), "::1"),
        ((IPV6,), "10.0.0.1"),
        ((IPV6,), "::2-::1"),
        ((ETHER,), "02:00:00:00:00"),
        ((ETHER,), "02:00:00:00:00:00:00"),
        ((DEVICE,), '""'),
        ((DEVICE,), '"pc*"'),
        ((DEVICE,), '"' + "a" * 16 + '"'),
        ((PROTOCOL, INTEGER), "6 . " + hex(1 << 128)),
        ((PROTOCOL, SERVICE), "tcp"),
    ],
)
def test_what_is_no_key(types: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match="not of the set's types"):
        encode(parts(*types), text)


def test_a_type_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="not known"):
        fields(IPV4 << 6 | 19, 8)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=16))
def test_after_and_before(data: bytes) -> None:
    following = after(data)
    if following is None:
        assert data == b"\xff" * len(data)
    else:
        assert following > data
        assert before(following) == data
