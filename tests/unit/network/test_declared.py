"""What is wrong with tables of networks, and with who refers to them; networks that several containers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pycore.errors import SpecError
from pycore.hookspecs import Host
from pycore.launch.namespaces import NetworkOf
from pycore.ops import Context
from pycore.plugins import load_plugins
from pycore.source.load import load_source
from pycore.spec import App, Container
from pycore.steps import Phase
from pycore.testing.fake import FakeKernel
from pycore_network import sharing
from pycore_network.ops.child import Child
from pycore_network.ops.lease import Lease
from pycore_network.ops.route import DefaultRoute

PLUGINS = load_plugins()
DB = {"default": {"addresses": ["10.20.0.7"]}}
SUBNET = {"subnets": ["10.20.0.0/24"]}


def load(containers: dict[str, Any], networks: dict[str, Any] | None = None, name: str = "shop") -> App:
    tables = {word: {"image": "host", "command": ["true"], **table} for word, table in containers.items()}
    source = {"name": name, "container": tables, "network": networks or {}}
    return load_source(source, directory=Path("/"), plugins=PLUGINS)


def complaints(containers: dict[str, Any], networks: dict[str, Any] | None = None) -> list[str]:
    """The problems, each with the end of its path."""
    try:
        load(containers, networks)
    except SpecError as error:
        return [f"{problem.path[-1]}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"external": True, "name": "x"}, []),
        ({"external": True, "mtu": 1400}, ["mtu: mtu is said where an external network is made, not here"]),
        ({**SUBNET, "gateways": ["10.20.0.9"]}, []),
        ({**SUBNET, "gateways": ["10.21.0.9"]}, ["0: 10.21.0.9 is in none of its `subnets`"]),
        ({"ipv6": False, "subnets": ["fd00:20::/64"]}, ["ipv6: ipv6 is false, and `subnets` has one of IPv6"]),
        ({"subnets": ["10.20.0.0/24", "10.21.0.0/24"]}, ["subnets: subnets: at most one of IPv4 and one of IPv6"]),
        ({"driver": "macvlan", "parent": "eth0", **SUBNET}, []),
        (
            {"driver": "macvlan", "parent": "eth0"},
            ["back: a network of the driver macvlan needs `subnets`: those of the network that `parent` is in"],
        ),
    ],
)
def test_tables(table: dict[str, Any], words: list[str]) -> None:
    assert complaints({"web": {}}, {"back": table}) == words


@pytest.mark.parametrize(
    ("containers", "networks", "words"),
    [
        ({"web": {"network": "back"}}, {}, ["0: no network 'back' is declared"]),
        ({"web": {"network": {"networks": {"back": {}}}}}, {}, ["back: no network 'back' is declared"]),
        ({"web": {"network": "back"}}, {"back": {}}, []),
        (
            {"web": {"network": {"networks": DB}}, "db": {"network": {"networks": DB}}},
            {"default": SUBNET},
            ["default: 10.20.0.7 is the address of container 'web' already"],
        ),
        (
            {"web": {"network": {"networks": DB}, "replicas": 2}},
            {"default": SUBNET},
            ["default: 10.20.0.7 is the address of container 'web-1' already"],
        ),
        (
            {"web": {"network": {"networks": ["a", "b"]}}},
            {"a": {"name": "x"}, "b": {"name": "x"}},
            ["1: [network.a] and [network.b] are the same network, 'x'"],
        ),
    ],
)
def test_who_refers_to_them(containers: dict[str, Any], networks: dict[str, Any], words: list[str]) -> None:
    assert complaints(containers, networks) == words


@pytest.mark.parametrize(
    ("attached", "words"),
    [
        ({"mac": "01:00:5e:00:00:01"}, "is the address of a group"),
        ({"mac": "02:42"}, "must be a hardware address"),
        ({"addresses": ["10.0.0.7/24"]}, "is no IP address"),
        ({"aliases": ["a b"]}, "must be a name"),
        ({"aliases": [""]}, "must be a name"),
        ({"address": "10.0.0.7"}, "unknown key"),
    ],
)
def test_what_cannot_be_of_a_container_in_a_network(attached: dict[str, Any], words: str) -> None:
    (said,) = complaints({"web": {"network": {"networks": {"default": attached}}}})
    assert words in said


# -- sharing -----------------------------------------------------------------------------------------------


def shared(container: Container) -> str:
    (operation,) = sharing.pycore_launch(container)
    assert isinstance(operation, NetworkOf)
    return operation.container


def test_whose_network_is_shared() -> None:
    app = load({"web": {}, "side": {"network": "container:web"}, "far": {"network": "container:bank/desk"}})
    assert shared(app.containers["side"]) == "shop/web"
    assert shared(app.containers["far"]) == "bank/desk"
    run = load({"brisk": {"network": "container:web"}}, name="brisk")
    assert shared(run.containers["brisk"]) == "web/web"


def test_it_is_known_also_where_the_rest_of_the_app_is_not_in_sight() -> None:
    app = load({"side": {"network": "container:web"}, "web": {}}, name="side")
    alone = {**app.source, "container": {"side": app.source["container"]["side"]}}
    found = load_source(alone, directory=Path("/"), plugins=PLUGINS, alone=True)
    assert shared(found.containers["side"]) == "side/web"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("container:web", "it would share the network with itself"),
        ("container:shop/web", "it would share the network with itself"),
        ("container:nobody", "no container 'nobody' to share the network of"),
        ("container:many", "no container 'many' to share the network of"),
    ],
)
def test_networks_that_cannot_be_shared(target: str, words: str) -> None:
    said = complaints({"web": {"network": target}, "many": {"replicas": 2}})
    assert words in " ".join(said) or "wait for each other" in " ".join(said)


def test_containers_cannot_share_each_others() -> None:
    said = complaints({"a": {"network": "container:b"}, "b": {"network": "container:a"}})
    assert any("wait for each other" in each for each in said)


# -- neighbours of the host --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "mode", "gateway", "mac"),
    [
        ("macvlan", "bridge", "192.0.2.1", "0a:58:c0:00:02:07"),
        ("ipvlan", "l2", "192.0.2.1", ""),
        ("ipvlan", "l3", "0.0.0.0", ""),
    ],
)
def test_a_device_on_one_of_the_hosts(driver: str, mode: str, gateway: str, mac: str) -> None:
    lan = {"driver": driver, "parent": "lo", "mode": mode, "subnets": ["192.0.2.0/24"], "mtu": 1400}
    attached = {"lan": {"addresses": ["192.0.2.7"]}}
    app = load({"web": {"network": {"networks": attached}}}, {"lan": lan})
    kernel = FakeKernel()
    kernel.host_routes = ["192.0.2.0/24"]
    kernel.add_process(71)
    container, host = app.containers["web"].with_id("0123456789ab"), Host(kernel, Path("/run/p"), Path("/data"))
    lease, child, route = (
        each
        for phase in (Phase.PREPARE, Phase.ATTACH)
        for each in PLUGINS.describe(phase, container, host)
        if isinstance(each, Lease | Child | DefaultRoute)
    )
    assert [problem for problem in host.problems if problem.path[0] == "network"] == []
    assert child == Child("eth0", driver, mode, "lo", ("192.0.2.7/24",), mac, 1400)
    before, ctx = kernel.snapshot(), Context(kernel, pid=71)
    for operation in (lease, child, route):
        operation.do(ctx)
        assert operation.probe(ctx) is not False
    assert kernel.network.namespaces[71].links["eth0"].addresses == {"192.0.2.7/24"}
    assert kernel.gateways(71) >= {gateway}
    for operation in (route, child, lease):
        operation.undo(ctx)
    assert set(kernel.network.namespaces[71].links) == {"lo"}
    assert kernel.gateways(71) == set()
    assert {key for key in kernel.snapshot().keys() ^ before.keys() if "/networks/" in key} == set()


def test_a_device_that_the_host_does_not_have() -> None:
    lan = {"driver": "macvlan", "parent": "eth9", "subnets": ["192.0.2.0/24"]}
    container = load({"web": {"network": "lan"}}, {"lan": lan}).containers["web"].with_id("0123456789ab")
    host = Host(FakeKernel(), Path("/run/p"), Path("/data"))
    PLUGINS.describe(Phase.PREPARE, container, host)
    assert any("this host has no such device" in problem.message for problem in host.problems)
