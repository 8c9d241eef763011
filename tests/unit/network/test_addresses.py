"""How subnets and addresses are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.errors import Conflict
from pycore.hookspecs import Host
from pycore.testing.fake import FakeKernel
from pycore_network.addresses import POOL, PREFIX, bridge_of, find_address, find_network, lease_of

from .conftest import Make

View = Callable[[], Host]


def record(kernel: FakeKernel, name: str, subnet: str, **leases: str) -> None:
    """A network that exists, with leases."""
    kernel.add_file(f"/run/pycore/networks/{name}/network.json", json.dumps({"subnet": subnet}))
    for address, identity in leases.items():
        kernel.add_file(f"/run/pycore/networks/{name}/leases/{address}", identity)


def route(text: str) -> tuple[int, int]:
    network = IPv4Network(text)
    return int(network.network_address), int(network.netmask)


@pytest.mark.parametrize(
    ("routes", "wanted"),
    [
        ([], "10.208.0.0/22"),
        (["10.208.0.0/22"], "10.208.4.0/22"),
        (["10.208.5.0/24"], "10.208.0.0/22"),
        (["10.208.0.0/16", "10.209.0.7/32"], "10.209.4.0/22"),
        (["10.0.0.0/9", "192.168.0.0/16"], "10.208.0.0/22"),
    ],
)
def test_subnets_keep_off_the_hosts_routes(kernel: FakeKernel, view: View, routes: list[str], wanted: str) -> None:
    kernel.host_routes = [route(text) for text in routes]
    assert str(find_network(view(), "shop", None).subnet) == wanted


def test_no_subnet_is_free(kernel: FakeKernel, view: View) -> None:
    kernel.host_routes = [route("10.0.0.0/8")]
    with pytest.raises(Conflict, match="no subnet"):
        find_network(view(), "shop", None)


def test_subnets_keep_off_other_networks_and_this_plans(kernel: FakeKernel, view: View) -> None:
    record(kernel, "bank", "10.208.0.0/22")
    host = view()
    assert str(find_network(host, "shop", None).subnet) == "10.208.4.0/22"
    assert str(find_network(host, "farm", None).subnet) == "10.208.8.0/22"
    assert str(find_network(host, "shop", None).subnet) == "10.208.4.0/22"
    assert str(find_network(host, "bank", None).subnet) == "10.208.0.0/22"


@given(st.lists(st.integers(0, 2**20 // 2 ** (32 - PREFIX) - 1), max_size=20, unique=True))
def test_subnets_never_overlap(taken: list[int]) -> None:
    from pathlib import Path

    kernel = FakeKernel()
    pieces = list(POOL.subnets(new_prefix=PREFIX))
    kernel.host_routes = [route(str(pieces[index])) for index in taken]
    host = Host(kernel, Path("/run/pycore"), Path("/var/lib/pycore"))
    chosen = [find_network(host, f"n{number}", None).subnet for number in range(3)]
    everything = [*chosen, *(pieces[index] for index in taken)]
    assert all(subnet.subnet_of(POOL) for subnet in chosen)
    assert sum(one.overlaps(other) for one in everything for other in everything) == len(everything)


def test_another_subnet_than_the_network_has(kernel: FakeKernel, view: View) -> None:
    record(kernel, "shop", "10.77.0.0/24")
    host = view()
    assert find_network(host, "shop", IPv4Network("10.77.0.0/24")).subnet == IPv4Network("10.77.0.0/24")
    assert host.problems == []
    assert find_network(host, "shop", IPv4Network("10.78.0.0/24")).subnet == IPv4Network("10.78.0.0/24")
    assert "exists already, with the subnet 10.77.0.0/24" in host.problems[0].message


@pytest.mark.parametrize("name", ["shop_default", "a", "x" * 63, "_.-"])
def test_bridge_names_fit_and_differ(view: View, name: str) -> None:
    host = view()
    assert len(bridge_of(host, name)) <= 15
    assert bridge_of(host, name) != bridge_of(host, name + "2")


def test_a_lease_is_found_again(kernel: FakeKernel, view: View, make: Make) -> None:
    container = make("shop/web")
    record(kernel, "shop", "10.208.0.0/22", **{"10.208.3.9": container.id, "10.208.0.2": "another"})
    host = view()
    network = find_network(host, "shop", None)
    assert find_address(host, network, container) == lease_of(host, container) == "10.208.3.9"


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=13, unique=True))
def test_addresses_are_inside_and_differ(names: list[str]) -> None:
    from pathlib import Path

    from pycore.spec import App, Container

    host = Host(FakeKernel(), Path("/run/pycore"), Path("/var/lib/pycore"))
    network = find_network(host, "shop", IPv4Network("10.77.0.0/28"))
    app = App("shop", Path("/"))
    chosen = [find_address(host, network, Container(app, name, {}, {}, name)) for name in names]
    assert len(set(chosen)) == len(names)
    assert {IPv4Address(address) for address in chosen} <= set(network.subnet.hosts()) - {IPv4Address(network.gateway)}


def test_a_full_network(view: View, make: Make) -> None:
    host = view()
    network = find_network(host, "shop", IPv4Network("10.77.0.0/29"))
    chosen = {find_address(host, network, make(f"shop/c{number}")) for number in range(5)}
    assert chosen == {f"10.77.0.{number}" for number in range(2, 7)}
    with pytest.raises(Conflict, match="no address is free"):
        find_address(host, network, make("shop/last"))
