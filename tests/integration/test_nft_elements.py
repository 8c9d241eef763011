"""Elements by messages of our own, against nft itself: what one puts in the other lists, and takes out."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from pycore.linux import nftables
from pycore.linux.nftelements import Element, Put, Withdraw, change, elements, packets, renewal
from pycore_network import ruleset
from pycore_network.elements import of_device, of_network, of_ports
from pycore_network.ports import Ports
from support.netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "nft")]

OTHERS = """
table ip6 t {
    set names { type ifname . ifname . ether_addr; }
    set protocols { type inet_proto; }
    set ports { type inet_service; flags interval; }
    set rows { type ipv4_addr . inet_service . inet_proto; flags interval; }
    set rows6 { type ipv6_addr . inet_service; flags interval; }
    set every { type ipv4_addr; flags interval; }
    set every6 { type ipv6_addr; flags interval; }
    set words { typeof @th,0,24; }
    set ending { type ipv4_addr . inet_proto . inet_service; flags timeout; }
    set counted { type ipv6_addr; counter; }
    map networks { type ipv4_addr : ipv6_addr; flags interval; }
    map behind { type ether_addr : ifname; }
}
"""
"""What the tables of networks do not have, or not in every form."""


def other(place: str, key: str, value: str = "", who: str = "") -> Element:
    return Element("ip6", place, key, value, who)


KINDS = [
    *of_network("net one", "pcb1", ["10.1.2.0/24", "10.1.3.0/24", "fd00::/64", "10.200.0.0/13"],
                internal=False, isolated=False),
    *of_network("inner", "pcb2", ["192.168.7.128/25"], internal=True, isolated=False),
    *of_device("pc1", "02:42:0a:01:02:03", ["10.1.2.3", "fd00::3"], "shop/web"),
    *of_ports(Ports("tcp", "", 8080, 80, 3), ["10.1.2.3", "fd00::3"], "shop/web"),
    *of_ports(Ports("udp", "127.0.0.1", 53, 5353), ["10.1.2.3"], "shop/web"),
    *of_ports(Ports("sctp", "::1", 256, 1), ["fd00::3"], "shop/web"),
    *of_ports(Ports("tcp", "", 443, 443, 2, "lan"), ["10.1.2.3", "fd00::3"], "shop/web"),
    *of_ports(Ports("tcp", "203.0.113.9", 444, 4, 1, "all", ("10.0.0.0/8", "198.51.100.1")), ["10.1.2.3"], "shop/web"),
    *of_ports(Ports("tcp", "2001:db8::9", 444, 444, 1, "all", ("2001:db8::/33",)), ["fd00::3"], "shop/web"),
    other("names", '"a-b.c" . "pcb1" . 00:00:5e:00:53:ff', who="x" * 127),
    other("protocols", "ipv6-icmp"),
    other("protocols", "sctp"),
    other("ports", "22"),
    other("ports", "1000-2000", who="a row"),
    other("ports", "65000-65535"),
    other("rows", "10.0.0.1 . 1000-2000 . tcp"),
    other("rows", "10.9.0.0/16 . 53 . udp", who="shop/dns"),
    other("rows", "0.0.0.0/0 . 8080-8083 . tcp"),
    other("rows", "10.0.0.3-10.0.0.17 . 70 . tcp"),
    other("rows6", "2001:db8::/32 . 1-2"),
    other("rows6", "::1 . 65535"),
    other("every", "0.0.0.0/0", who="everybody"),
    other("every6", "8000::/1"),
    other("every6", "::-::5"),
    other("every6", "::7"),
    other("words", "0x10203"),
    other("ending", "10.0.0.1 . tcp . 80"),
    other("counted", "fe80::1"),
    other("networks", "10.0.0.0/8", "2001:db8::1"),
    other("networks", "11.0.0.1", "2001:db8::2", who="one"),
    other("behind", "02:00:00:00:00:01", '"pc1"'),
]  # fmt: skip


@pytest.fixture
def space() -> Iterator[Namespace]:
    with closing(Namespace()) as made, made.entered():
        nftables.run(ruleset.create("t") + OTHERS)
        yield made


def text(element: Element) -> str:
    """As people give it to nft."""
    who = f' comment "{element.who}"' if element.who else ""
    value = f" : {element.value}" if element.value else ""
    return f"add element {element.family} t {element.place} {{ {element.key}{who}{value} }}"


def listed(space: Namespace) -> dict[str, list[str]]:
    """Sets and maps to their elements, as nft lists them."""
    found: dict[str, list[str]] = {}
    for each in json.loads(space.run("nft -j list ruleset"))["nftables"]:
        about = each.get("set") or each.get("map")
        if about and about.get("elem"):
            found[f"{about['family']} {about['name']}"] = sorted(json.dumps(element) for element in about["elem"])
    return found


def put(*wanted: Element) -> None:
    change("t", [Put(each) for each in wanted])


def take(*unwanted: Element) -> None:
    change("t", [Withdraw(each) for each in unwanted])


def theirs(family: str, place: str) -> dict[str, str]:
    return {each.key: each.value for each in KINDS if (each.family, each.place) == (family, place)}


def test_every_kind_is_what_nft_makes_of_it(space: Namespace) -> None:
    nftables.run("\n".join(map(text, KINDS)))
    by_nft = listed(space)
    assert len(by_nft) > 20
    assert sum(map(len, by_nft.values())) == len(set(KINDS))
    nftables.run(ruleset.delete("t") + "delete table ip6 t\n" + ruleset.create("t") + OTHERS)
    assert listed(space) == {}
    put(*KINDS)
    assert listed(space) == by_nft
    for family, place in {(each.family, each.place) for each in KINDS}:
        assert elements(f"{family} t", place) == theirs(family, place)
    assert packets("t", KINDS) == [0] * len(KINDS)


def test_what_nft_has_put_in_is_found_and_taken_out(space: Namespace) -> None:
    nftables.run("\n".join(map(text, KINDS)))
    put(*KINDS)
    for family, place in {(each.family, each.place) for each in KINDS}:
        assert elements(f"{family} t", place) == theirs(family, place)
    assert packets("t", KINDS) == [0] * len(KINDS)
    take(*set(KINDS))
    assert listed(space) == {}


def test_what_we_have_put_in_is_taken_out_by_nft(space: Namespace) -> None:
    put(*KINDS)
    nftables.run("\n".join(f"delete element {each.family} t {each.place} {{ {each.key} }}" for each in set(KINDS)))
    assert listed(space) == {}


@pytest.mark.parametrize("each", KINDS, ids=str)
def test_each_alone(space: Namespace, each: Element) -> None:
    assert packets("t", [each]) == [None]
    put(each)
    put(each)
    assert packets("t", [each]) == [0]
    take(each)
    assert packets("t", [each]) == [None]
    with pytest.raises(FileNotFoundError, match="nftables: "):
        take(each)


def test_a_transaction_is_all_or_nothing(space: Namespace) -> None:
    first, second = other("protocols", "tcp"), other("behind", "02:00:00:00:00:01", '"pc1"')
    put(second)
    before = listed(space)
    with pytest.raises(FileExistsError, match=r'nftables: File exists: ip6 behind \{ 02:00:00:00:00:01 : "pc2" \}'):
        put(first, other("behind", second.key, '"pc2"'))
    with pytest.raises(FileNotFoundError, match=r"ip6 protocols \{ udp \}"):
        change("t", [Put(first), Withdraw(second), Withdraw(other("protocols", "udp")), Put(second)])
    assert listed(space) == before
    change("t", [Withdraw(second), Put(other("behind", second.key, '"pc2"')), Put(first)])
    assert elements("ip6 t", "behind") == {second.key: '"pc2"'}
    assert packets("t", [first, second]) == [0, None]


@pytest.mark.parametrize("key", ["10.0.0.0/9", "10.1.0.0/16", "9.0.0.0-10.0.0.0", "10.0.0.0/7", "10.255.255.255"])
def test_a_range_that_overlaps_another_is_refused(space: Namespace, key: str) -> None:
    put(other("networks", "10.0.0.0/8", "::1"), other("every", "10.0.0.0/8"))
    before = listed(space)
    for each in (other("networks", key, "::1"), other("every", key)):
        with pytest.raises(FileExistsError):
            put(each)
        assert packets("t", [each]) == [None]
        with pytest.raises(FileNotFoundError):
            take(each)
    assert listed(space) == before


@pytest.mark.parametrize("key", ["10.0.0.0/24 . 1-2 . tcp", "10.0.0.0/16 . 1-3 . tcp", "10.0.0.1 . 2 . tcp"])
def test_a_range_in_a_concatenation_that_overlaps_another(space: Namespace, key: str) -> None:
    """The kernel would take the other one out."""
    there, beside = other("rows", "10.0.0.0/16 . 1-2 . tcp"), other("rows", "10.9.0.0/16 . 1-2 . tcp")
    put(there)
    before = listed(space)
    with pytest.raises(FileExistsError):
        put(other("rows", key))
    assert packets("t", [other("rows", key), beside]) == [None, None]
    for each in (other("rows", key), beside):
        with pytest.raises(FileNotFoundError):
            take(each)
    assert listed(space) == before
    change("t", [Withdraw(there), Put(other("rows", key))])
    assert elements("ip6 t", "rows") == {key: ""}


def test_neighbours_do_not_overlap(space: Namespace) -> None:
    for order in (("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"), ("10.0.1.0/24", "10.0.2.0/24", "10.0.0.0/24")):
        for key in order:
            put(other("every", key))
        assert elements("ip6 t", "every").keys() == set(order)
        take(other("every", "10.0.1.0/24"))
        assert elements("ip6 t", "every").keys() == {"10.0.0.0/24", "10.0.2.0/24"}
        take(other("every", "10.0.0.0/24"), other("every", "10.0.2.0/24"))


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("protocols", "300"),
        ("protocols", "tcp . udp"),
        ("protocols", "nonsense"),
        ("ports", "70000"),
        ("ports", "9-8"),
        ("every", "10.0.0.0/33"),
        ("every", "::1"),
        ("counted", "fe80::/64"),
        ("ending", "10.0.0.1 . tcp . 1-2"),
        ("names", '"' + "a" * 16 + '" . "b" . 00:00:5e:00:53:ff'),
        ("behind", "02:00"),
    ],
)
def test_what_is_no_key(space: Namespace, place: str, key: str) -> None:
    with pytest.raises(OSError, match=r"not of the set's types|no set of ranges") as caught:
        put(other(place, key))
    assert caught.value.errno == errno.EINVAL


def test_no_such_table_or_set(space: Namespace) -> None:
    for table, place in (("u", "protocols"), ("t", "nothing")):
        with pytest.raises(FileNotFoundError):
            change(table, [Put(other(place, "tcp"))])
        assert elements(f"ip6 {table}", place) == {}
        assert packets(table, [other(place, "tcp")]) == [None]


def test_tables_made_anew_with_other_types(space: Namespace) -> None:
    put(other("protocols", "tcp"))
    nftables.run("delete table ip6 t")
    with pytest.raises(FileNotFoundError):
        put(other("protocols", "tcp"))
    nftables.run("table ip6 t {\n set protocols { type ipv4_addr; }\n}")
    put(other("protocols", "1.2.3.4"))
    assert elements("ip6 t", "protocols") == {"1.2.3.4": ""}


def test_a_type_that_is_not_known(space: Namespace) -> None:
    nftables.run("add set ip6 t marks { type mark; }")
    with pytest.raises(OSError, match="not known"):
        put(other("marks", "1"))


def expires(space: Namespace) -> list[int]:
    listing = json.loads(space.run("nft -j list set ip6 t ending"))["nftables"]
    (about,) = (each["set"] for each in listing if "set" in each)
    return [each["elem"]["expires"] for each in about["elem"]]


def test_an_element_that_ends_is_renewed(space: Namespace) -> None:
    ending = other("ending", "10.0.0.1 . udp . 53", who="shop/web")
    change("t", renewal(ending, 1000))
    assert 900 < expires(space)[0] <= 1000
    change("t", renewal(ending, 5000))
    assert 4900 < expires(space)[0] <= 5000
    change("t", renewal(ending, 100))
    assert 0 < expires(space)[0] <= 100
    assert elements("ip6 t", "ending") == {ending.key: ""}


def test_thousands_in_one_transaction(space: Namespace) -> None:
    """More than fits into a socket unasked, and more refusals than fit in on the way back."""
    many = list(of_ports(Ports("tcp", "", 1000, 1000, 5000), ["10.1.2.3"], "shop/" + "w" * 90))
    put(*many)
    assert packets("t", many) == [0] * 5000
    take(*many)
    with pytest.raises(FileNotFoundError):
        take(*many)
    put(*many[:1])
    assert len(elements("inet t", "ports")) == 1


def test_packets_are_counted(space: Namespace) -> None:
    wanted = list(of_ports(Ports("tcp", "", 8080, 80), ["10.1.2.3"], "w"))
    nftables.run("add element inet t ports { tcp . 8080 counter packets 70000 bytes 9 : 10.1.2.3 . 80 }")
    assert packets("t", wanted) == [70000]


def test_one_namespace_and_another(space: Namespace) -> None:
    put(other("protocols", "tcp"))
    with closing(Namespace()) as another, another.entered():
        assert elements("ip6 t", "protocols") == {}
    assert elements("ip6 t", "protocols") == {"tcp": ""}


def test_after_a_fork(space: Namespace) -> None:
    put(other("protocols", "tcp"))
    child = os.fork()
    if child == 0:
        try:
            put(other("protocols", "udp"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    put(other("protocols", "sctp"))
    assert elements("ip6 t", "protocols").keys() == {"tcp", "udp", "sctp"}
