"""How networks, their subnets and addresses in them are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import Conflict
from pycore.hookspecs import Host
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_network.addresses import POOL, PREFIX, find_addresses, lease_of
from pycore_network.finding import find_network
from pycore_network.memberships import Networks, known_memberships, memberships
from pycore_network.networks import Network, NetworkTable, bridge_of, recorded

from .conftest import Make

View = Callable[[], Host]
MADE = Network("shop", "bridge", (ip_network("10.77.0.0/24"),), ("10.77.0.1",), "/run/pycore/networks/shop")


def app_of(tables: dict[str, dict[str, Any]] | None = None, name: str = "shop") -> App:
    named = {word: {NetworkTable: NetworkTable(**values)} for word, values in (tables or {}).items()}
    return App(name, Path("/"), {"network": named})


def subnets(host: Host, word: str = "default", **table: Any) -> list[str]:
    return [str(subnet) for subnet in find_network(host, app_of({word: table}), word).subnets]


def record(kernel: FakeKernel, name: str, *texts: str, **leases: str) -> None:
    """A network that exists, with leases: address to the id of a container."""
    pairs = tuple(map(ip_network, texts))
    network = replace(MADE, name=name, subnets=pairs, gateways=tuple(str(subnet[1]) for subnet in pairs))
    kernel.add_file(f"/run/pycore/networks/{name}/network.json", network.record())
    for address, identity in leases.items():
        kernel.add_file(f"/run/pycore/networks/{name}/leases/{address}", f"{identity} eth3 bank/{identity}\n")


def without_ipv6(kernel: FakeKernel) -> None:
    kernel.add_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1\n")


# -- subnets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "wanted"),
    [
        ([], "10.208.0.0/22"),
        (["10.208.0.0/22"], "10.208.4.0/22"),
        (["10.208.5.0/24"], "10.208.0.0/22"),
        (["10.208.0.0/16", "10.209.0.7/32"], "10.209.4.0/22"),
        (["10.0.0.0/9", "192.168.0.0/16", "fd00::/8"], "10.208.0.0/22"),
    ],
)
def test_subnets_keep_off_the_hosts_routes(kernel: FakeKernel, view: View, routes: list[str], wanted: str) -> None:
    kernel.host_routes = routes
    without_ipv6(kernel)
    assert subnets(view()) == [wanted]


def test_no_subnet_is_free(kernel: FakeKernel, view: View) -> None:
    kernel.host_routes = ["10.0.0.0/8"]
    with pytest.raises(Conflict, match="no subnet"):
        subnets(view())


def test_subnets_keep_off_other_networks_and_this_plans(kernel: FakeKernel, view: View) -> None:
    record(kernel, "bank", "10.208.0.0/22")
    host = view()
    assert subnets(host, "x", ipv6=False) == ["10.208.4.0/22"]
    assert subnets(host, "y", ipv6=False) == ["10.208.8.0/22"]
    assert subnets(host, "x", ipv6=False) == ["10.208.4.0/22"]
    assert subnets(host, "z", name="bank", ipv6=False) == ["10.208.0.0/22"]


def test_a_subnet_of_ipv6_is_told_from_host_and_name(kernel: FakeKernel, view: View) -> None:
    first = subnets(view())[1]
    assert subnets(view())[1] == first
    assert ip_network(first).subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]
    assert subnets(view(), "other")[1] != first
    kernel.host_routes = [first]
    assert subnets(view())[1] != first
    kernel.add_file("/etc/machine-id", "another\n")
    assert subnets(view())[1] != first


@pytest.mark.parametrize(
    ("table", "families"),
    [
        ({}, [4, 6]),
        ({"ipv6": False}, [4]),
        ({"subnets": ["fd00:20::/64"]}, [6]),
        ({"subnets": ["fd00:20::/64", "10.20.0.0/24"]}, [4, 6]),
        ({"subnets": ["10.20.0.0/24"]}, [4, 6]),
    ],
)
def test_families(kernel: FakeKernel, view: View, table: dict[str, Any], families: list[int]) -> None:
    assert [ip_network(text).version for text in subnets(view(), **table)] == families
    without_ipv6(kernel)
    host = view()
    found = subnets(host, **table)
    if "fd00:20::/64" in found:
        assert "this host has no IPv6" in host.problems[0].message
    else:
        assert [ip_network(text).version for text in found] == [4]


@given(st.lists(st.integers(0, 2**20 // 2 ** (32 - PREFIX) - 1), max_size=20, unique=True))
def test_subnets_never_overlap(taken: list[int]) -> None:
    kernel = FakeKernel()
    pieces = list(POOL.subnets(new_prefix=PREFIX))
    kernel.host_routes = [str(pieces[index]) for index in taken]
    host = Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
    chosen = [ip_network(subnets(host, f"n{number}")[0]) for number in range(3)]
    everything = [*chosen, *(pieces[index] for index in taken)]
    assert all(subnet.subnet_of(POOL) for subnet in chosen)  # type: ignore[arg-type]
    assert sum(one.overlaps(other) for one in everything for other in everything) == len(everything)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"subnets": ["10.77.0.0/24"]}, ""),
        ({"subnets": ["10.78.0.0/24"]}, "with the subnet 10.77.0.0/24 instead of 10.78.0.0/24"),
        ({"subnets": ["fd00:20::/64"]}, "without the subnet fd00:20::/64"),
        ({"subnets": ["10.77.0.0/24"], "gateways": ["10.77.0.9"]}, "with the gateway 10.77.0.1 instead of 10.77.0.9"),
        ({"internal": True}, "with internal False instead of True"),
        ({"mtu": 1400}, "with mtu 0 instead of 1400"),
        ({"isolated": False}, "with isolated True instead of False"),
        ({"labels": {"a": "b"}}, ""),
        ({"external": True}, ""),
    ],
)
def test_another_network_than_there_is(kernel: FakeKernel, view: View, table: dict[str, Any], words: str) -> None:
    record(kernel, "shop", "10.77.0.0/24")
    host = view()
    assert subnets(host, "x", name="shop", **table) == ["10.77.0.0/24"]
    found = [problem.message for problem in host.problems]
    assert found == ([f"the network 'shop' exists already, {words}"] if words else [])


def test_an_external_network_has_to_be_there(kernel: FakeKernel, view: View) -> None:
    host = view()
    subnets(host, "back", external=True)
    assert host.problems[0].hint == "make it: pycore network create back"
    kernel.add_file("/var/lib/pycore/networks/back.json", replace(MADE, name="back").record())
    host = view()
    assert subnets(host, "back", external=True) == ["10.77.0.0/24"]
    assert host.problems == []


@pytest.mark.parametrize("name", ["shop_default", "a", "x" * 63, "_.-"])
def test_bridge_names_fit_and_differ(view: View, name: str) -> None:
    host = view()
    assert len(bridge_of(host, name)) <= 15
    assert bridge_of(host, name) != bridge_of(host, name + "2")


def test_a_record_is_what_it_was_made_of(kernel: FakeKernel, view: View) -> None:
    network = replace(MADE, internal=True, mtu=1400, isolated=False, labels={"a": "b"}, options={"parent": "eth0"})
    kernel.add_file("/run/pycore/networks/shop/network.json", network.record())
    found = recorded(view(), "shop")
    assert found is not None
    assert replace(found, bridge="") == network
    assert found.record() == network.record()


# -- addresses ---------------------------------------------------------------------------------------------


def test_a_lease_is_found_again(kernel: FakeKernel, view: View, make: Make) -> None:
    web = make("shop/web", tables={"default": {"name": "shop"}})
    record(kernel, "shop", "10.208.0.0/22", "fd00::/64", **{"10.208.3.9": web.id, "fd00::309": web.id})
    (found,) = memberships(web, view())
    assert (found.device, found.addresses) == ("eth3", ("10.208.3.9", "fd00::309"))


def test_addresses_of_both_families_are_at_one_place(view: View, make: Make) -> None:
    (found,) = memberships(make(), view())
    places = [
        int(ip_address(address)) - int(subnet.network_address)
        for address, subnet in zip(found.addresses, found.network.subnets, strict=True)
    ]
    assert len(places) == 2
    assert len(set(places)) == 1


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=13, unique=True))
def test_addresses_are_inside_and_differ(names: list[str]) -> None:
    host = Host(FakeKernel(), Path("/run/pycore"), Path("/var/lib/pycore"))
    app = app_of({"default": {"subnets": ["10.77.0.0/28"]}})
    network = find_network(host, app, "default")
    chosen = [find_addresses(host, network, Container(app, name, {}, {}, name), (), ())[0] for name in names]
    assert len(set(chosen)) == len(names)
    inside = {str(address) for address in ip_network("10.77.0.0/28").hosts()}
    assert set(chosen) <= inside - {"10.77.0.1"}


def test_a_full_network(view: View, make: Make) -> None:
    host, how = view(), {"tables": {"default": {"subnets": ["10.77.0.0/29"], "ipv6": False}}}
    chosen = {memberships(make(f"shop/c{number}", **how), host)[0].addresses[0] for number in range(5)}
    assert chosen == {f"10.77.0.{number}" for number in range(2, 7)}
    with pytest.raises(Conflict, match="no address is free"):
        memberships(make("shop/last", **how), host)


def test_a_gateway_elsewhere_leaves_the_first_address_to_a_container(view: View, make: Make) -> None:
    host = view()
    how = {"tables": {"default": {"subnets": ["10.77.0.0/29"], "gateways": ["10.77.0.6"], "ipv6": False}}}
    chosen = {memberships(make(f"shop/c{number}", **how), host)[0].addresses[0] for number in range(5)}
    assert chosen == {f"10.77.0.{number}" for number in range(1, 6)}


TABLES = {"default": {"subnets": ["10.77.0.0/24", "fd00:77::/64"]}}


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.77.0.9", ""),
        ("fd00:77::9", ""),
        ("10.78.0.9", "no address of a container in 10.77.0.0/24"),
        ("10.77.0.255", "no address of a container"),
        ("10.77.0.1", "is the gateway"),
        ("10.77.0.5", "is the address of bank/other"),
    ],
)
def test_fixed_addresses(kernel: FakeKernel, view: View, make: Make, address: str, words: str) -> None:
    record(kernel, "shop_default", "10.77.0.0/24", "fd00:77::/64", **{"10.77.0.5": "other"})
    host = view()
    web = make(tables=TABLES, networks={"default": {"addresses": [address]}})
    (found,) = memberships(web, host)
    messages = [problem.message for problem in host.problems]
    assert words in "".join(messages)
    assert bool(messages) == bool(words)
    if not words:
        assert found.addresses == ("10.77.0.9", "fd00:77::9")


def test_an_address_that_is_named_is_nobody_elses(view: View, make: Make) -> None:
    host = view()
    free = memberships(make("shop/db", tables=TABLES), view())[0].addresses[0]
    db = make("shop/db", tables=TABLES)
    web = make("shop/web", tables=TABLES, networks={"default": {"addresses": [free]}})
    app = App("shop", Path("/"), db.app.tables, {"db": db, "web": web})
    assert memberships(replace(db, app=app), host)[0].addresses[0] != free
    assert memberships(replace(web, app=app), host)[0].addresses[0] == free
    assert host.problems == []


@pytest.mark.parametrize(
    ("alone", "others", "words"),
    [
        (False, [], ""),
        (True, [], "is the address of shop/db"),
        (False, ["10.77.0.9"], ""),
        (False, None, "is the address of shop/db"),
    ],
)
def test_an_address_of_another_of_the_app(
    kernel: FakeKernel, view: View, make: Make, alone: bool, others: list[str] | None, words: str
) -> None:
    """It is free where the other goes, or gets another; not where nothing is known of it."""
    record(kernel, "shop_default", "10.77.0.0/24", "fd00:77::/64")
    kernel.add_file("/run/pycore/networks/shop_default/leases/10.77.0.5", "0123 eth0 shop/db\n")
    web = make("shop/web", tables=TABLES, networks={"default": {"addresses": ["10.77.0.5"]}})
    containers = {"web": web}
    if others is None or others:
        containers["db"] = make("shop/db", tables=TABLES, networks={"default": {"addresses": others or []}})
    host = view()
    memberships(replace(web, app=replace(web.app, containers=containers, alone=alone)), host)
    assert words in "".join(problem.message for problem in host.problems)
    assert bool(words) == bool(host.problems)


def test_devices_stay_when_others_come_and_go(view: View, make: Make) -> None:
    host, tables = view(), {word: {} for word in "abc"}

    def devices(*words: str) -> dict[str, str]:
        found = memberships(make(tables=tables, networks=list(words)), host)
        return {each.network.name.removeprefix("shop_"): each.device for each in found}

    assert devices("a", "b") == {"a": "eth0", "b": "eth1"}
    assert devices("b") == {"b": "eth1"}
    assert devices("b", "c") == {"b": "eth1", "c": "eth0"}


def test_the_way_out_is_the_first_that_is_not_internal(view: View, make: Make) -> None:
    tables = {"a": {"internal": True}, "b": {}, "c": {}}
    found = memberships(make(tables=tables, networks=["a", "b", "c"]), view())
    assert [each.gateway for each in found] == [False, True, False]


def test_a_hardware_address_is_told_from_the_address_or_named(view: View, make: Make) -> None:
    (found,) = memberships(make(), view())
    assert found.mac.startswith("0a:58:0a:d0:")
    (found,) = memberships(make(networks={"default": {"mac": "02-42-AC-11-00-02"}}), view())
    assert found.mac == "02:42:ac:11:00:02"


def test_nothing_is_leased_by_looking(kernel: FakeKernel, view: View, make: Make) -> None:
    host, web = view(), make()
    assert Networks in web
    (found,) = memberships(web, host)
    assert lease_of(host, found.network, web) == (found.device, found.addresses)
    assert kernel.calls == []


def test_what_a_container_has_is_found_without_reading_what_others_have(
    kernel: FakeKernel, view: View, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = make()
    (membership,) = memberships(web, view())
    network = membership.network
    kernel.add_file(f"{network.directory}/network.json", network.record())
    for address in membership.addresses:
        kernel.add_file(f"{network.directory}/leases/{address}", f"{web.id} eth0 {web.full_name}\n")
    read: list[str] = []
    look = kernel.read

    def noted(path: str, limit: int = 1 << 20) -> str:
        read.append(path)
        return look(path, limit)

    monkeypatch.setattr(kernel, "read", noted)
    (found,) = known_memberships(web, view())
    assert found.addresses == membership.addresses
    assert len(membership.addresses) == 2
    assert len([path for path in read if "/leases/" in path]) <= 3
