"""Containers in several networks of both families, which come and go while they run; networks that are shared."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel
from pycore.ops import Context
from pycore.plugins import load_plugins
from pycore.source.load import load_source
from pycore.steps import Phase
from support.command import Command
from support.netns import Namespace, peer_seen

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "libseccomp", "ip")]

NETWORKS = """
[network.front]
mtu = 1400

[network.back]
internal = true

[network.other]
"""

WEB = """
[container.web]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
network.networks = {networks}
"""

DB = """
[container.db]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
network.networks.back = {attached}
"""

ANEW = 'isolation.hostname = "other"\n'
"""What a container is made anew for."""

SIDE = """
[container.side]
image = "host"
command = ["sleep", "1000"]
stop_signal = "SIGKILL"
network = "container:web"
"""


@pytest.fixture
def pycore(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    command.end()


def apply(pycore: Command, *parts: str) -> None:
    pycore("apply", pycore.write('name = "shop"\n' + NETWORKS + "".join(parts)))


def devices(pycore: Command, name: str = "shop/web") -> dict[str, dict[str, Any]]:
    """What the container itself sees, but loopback, by device."""
    found = json.loads(pycore("exec", name, "ip", "-json", "address"))
    return {link["ifname"]: link for link in found if link["ifname"] != "lo"}


def addresses(link: dict[str, Any]) -> list[str]:
    """Those that it was given."""
    return [each["local"] for each in link["addr_info"] if each["scope"] == "global"]


def default_routes(pycore: Command, name: str = "shop/web") -> list[str]:
    """The devices that the way out leads through, of IPv4 and IPv6."""
    routes = [json.loads(pycore("exec", name, "ip", version, "-json", "route")) for version in ("-4", "-6")]
    return [route["dev"] for found in routes for route in found if route["dst"] == "default"]


def pid_of(pycore: Command, name: str) -> int:
    return int(pycore.json("inspect", name)["pid"])


def test_several_networks(pycore: Command) -> None:
    apply(pycore, WEB.format(networks='["back", "front"]'))
    seen, told = devices(pycore), pycore.json("inspect", "shop/web")["networks"]
    assert list(seen) == ["eth0", "eth1"]
    for name, device in (("shop_back", "eth0"), ("shop_front", "eth1")):
        assert told[name]["device"] == device
        assert seen[device]["address"] == told[name]["mac"]
        assert addresses(seen[device]) == [each.partition("/")[0] for each in told[name]["addresses"]]
    assert (seen["eth0"]["mtu"], seen["eth1"]["mtu"]) == (1500, 1400)
    assert set(default_routes(pycore)) == {"eth1"}
    hosts = pycore("exec", "shop/web", "cat", "/etc/hosts").split()
    assert set(addresses(seen["eth0"]) + addresses(seen["eth1"])) <= set(hosts)


def test_networks_come_and_go_while_it_runs(pycore: Command) -> None:
    apply(pycore, WEB.format(networks='["front", "back"]'))
    before, pid = devices(pycore), pid_of(pycore, "shop/web")
    apply(pycore, WEB.format(networks='["back", "other"]'))
    after = devices(pycore)
    assert pid_of(pycore, "shop/web") == pid
    assert after["eth1"]["ifindex"] == before["eth1"]["ifindex"]
    assert addresses(after["eth1"]) == addresses(before["eth1"])
    assert addresses(after["eth0"]) != addresses(before["eth0"])
    assert set(default_routes(pycore)) == {"eth0"}
    hosts = pycore("exec", "shop/web", "cat", "/etc/hosts").split()
    assert set(addresses(after["eth0"])) <= set(hosts)
    assert not set(addresses(before["eth0"])) & set(hosts)
    apply(pycore, WEB.format(networks='["back"]'))
    assert list(devices(pycore)) == ["eth1"]
    assert default_routes(pycore) == []
    assert pycore("plan", pycore.write("name = 'shop'\n" + NETWORKS + WEB.format(networks='["back"]')))
    assert [path.name for path in (pycore.run_dir / "networks").iterdir()] == ["shop_back"]


def test_what_a_container_is_in_a_network_changes_while_it_runs(pycore: Command) -> None:
    apply(pycore, DB.format(attached="{}"))
    pid = pid_of(pycore, "shop/db")
    subnet = devices(pycore, "shop/db")["eth0"]["addr_info"][0]["local"].rpartition(".")[0]
    attached = f'{{ addresses = ["{subnet}.77"], mac = "02:42:ac:11:00:02", aliases = ["data"] }}'
    apply(pycore, DB.format(attached=attached))
    link = devices(pycore, "shop/db")["eth0"]
    assert pid_of(pycore, "shop/db") == pid
    assert addresses(link)[0] == f"{subnet}.77"
    assert link["address"] == "02:42:ac:11:00:02"
    (file,) = (pycore.run_dir / "networks/shop_back/names").iterdir()
    assert json.loads(file.read_text())["aliases"] == ["data"]


def test_an_address_survives_a_new_container(pycore: Command) -> None:
    attached = '{ addresses = ["10.20.0.7"] }'
    source = 'name = "shop"\n[network.back]\nsubnets = ["10.20.0.0/24"]\n' + DB.format(attached=attached)
    pycore("apply", pycore.write(source))
    first = pycore.json("inspect", "shop/db")
    pycore("apply", pycore.write(source + ANEW))
    second = pycore.json("inspect", "shop/db")
    assert first["id"] != second["id"]
    assert addresses(devices(pycore, "shop/db")["eth0"])[0] == "10.20.0.7"
    (line,) = (pycore.run_dir / "networks/shop_back/leases/10.20.0.7").read_text().splitlines()
    assert line.split()[0] == second["id"]
    said = pycore.fails("run", "--rm", "--network", "shop_back", "--ip", "10.20.0.7", "host", "true", status=125)
    assert "10.20.0.7 is the address of shop/db" in said


def test_run_in_networks_that_are_there(pycore: Command) -> None:
    apply(pycore, DB.format(attached="{}"))
    told = pycore("run", "--rm", "--network", "shop_back", "--network", "default", "host", "ip", "-json", "address")
    assert [link["ifname"] for link in json.loads(told)] == ["lo", "eth0", "eth1"]
    said = pycore.fails("run", "--rm", "--network", "nonesuch", "host", "true", status=125)
    assert "there is no network 'nonesuch'" in said
    assert "pycore network create nonesuch" in said


# -- one network for several -------------------------------------------------------------------------------


def test_a_shared_network(pycore: Command) -> None:
    apply(pycore, SIDE, WEB.format(networks='["front", "back"]'))
    seen = devices(pycore)
    assert devices(pycore, "shop/side") == seen
    pycore("restart", "-t", "0", "shop/web")
    again = devices(pycore)
    assert devices(pycore, "shop/side") == again
    assert {name: addresses(link) for name, link in again.items()} == {
        name: addresses(link) for name, link in seen.items()
    }
    assert set(default_routes(pycore, "shop/side")) == {"eth0"}


def test_who_shares_a_network_has_it_while_the_other_is_stopped_or_made_anew(pycore: Command) -> None:
    apply(pycore, SIDE, WEB.format(networks='["front"]'))
    pid = pid_of(pycore, "shop/side")
    pycore("stop", "-t", "0", "shop/web")
    assert list(devices(pycore, "shop/side")) == ["eth0"]
    pycore("start", "shop/web")
    apply(pycore, SIDE, WEB.format(networks='["front"]') + ANEW)
    assert devices(pycore, "shop/side") == devices(pycore)
    assert pid_of(pycore, "shop/side") == pid


def test_a_container_whose_network_nobody_has(pycore: Command) -> None:
    said = pycore.fails("run", "--rm", "--network", "container:nonesuch", "host", "true", status=125)
    assert "nonesuch/nonesuch, whose network it shares, does not run" in said
    pycore("run", "-d", "--name", "web", "host", "sleep", "1000")
    told = pycore("run", "--rm", "--network", "container:web", "host", "ip", "-json", "address")
    assert {link["ifname"]: link for link in json.loads(told)}["eth0"] == devices(pycore, "web/web")["eth0"]


# -- neighbours of the host --------------------------------------------------------------------------------


@pytest.fixture
def lan() -> Iterator[tuple[Namespace, Namespace]]:
    """A host and its neighbour."""
    host, neighbour = Namespace(loopback=True), Namespace(loopback=True)
    try:
        host.run(f"ip link add lan0 type veth peer name lan0 netns {neighbour.pid}")
        for side, number in ((host, 1), (neighbour, 2)):
            side.run(f"ip address add 192.0.2.{number}/24 dev lan0")
            side.bring_up("lan0")
        for side in (host, neighbour):
            Kernel().link_wait(["lan0"], side.pid)
        host.wait_until_reached("192.0.2.2")
        yield host, neighbour
    finally:
        host.close()
        neighbour.close()


@pytest.mark.parametrize(("driver", "mode"), [("macvlan", "bridge"), ("ipvlan", "l2"), ("ipvlan", "l3")])
def test_neighbours_of_the_host(
    lan: tuple[Namespace, Namespace], tmp_path: Path, request: pytest.FixtureRequest, driver: str, mode: str
) -> None:
    host, neighbour = lan
    try:
        host.run(f"ip link add test0 link lan0 type {driver}")
        host.run("ip link delete test0")
    except subprocess.CalledProcessError:
        pytest.skip(f"this kernel has no {driver}")
    source = {
        "network": {"lan": {"driver": driver, "parent": "lan0", "mode": mode, "subnets": ["192.0.2.0/24"]}},
        "container": {
            "web": {
                "image": "host",
                "command": ["true"],
                "network": {"networks": {"lan": {"addresses": ["192.0.2.7"]}}},
            }
        },
    }
    plugins = load_plugins()
    container = load_source(source, directory=tmp_path, plugins=plugins).containers["web"].with_id("0123456789ab")
    inside = Namespace()
    request.addfinalizer(inside.close)
    context = Context(Kernel(), "app/web", pid=inside.pid)
    with host.entered():
        view = Host(Kernel(), tmp_path, tmp_path)
        operations = [
            each
            for phase in (Phase.PREPARE, Phase.ATTACH)
            for each in plugins.describe(phase, container, view)
            if type(each).__module__.startswith("pycore_network")
        ]
        assert [problem for problem in view.problems if problem.path[0] == "network"] == []
        for operation in operations:
            operation.do(context)
        assert False not in [operation.probe(context) for operation in operations]
    with inside.listen(80) as server:
        assert peer_seen(neighbour.socket(), server, ("192.0.2.7", 80)) == "192.0.2.2"
    with neighbour.listen(81) as server:
        assert peer_seen(inside.socket(), server, ("192.0.2.2", 81)) == "192.0.2.7"
    with host.entered():
        for operation in reversed(operations):
            operation.undo(context)
    with inside.entered():
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert list((tmp_path / "networks").iterdir()) == []
