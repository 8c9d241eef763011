"""The verbs of ``network``, and what is said and done about the host's own firewall, with containers that run."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycore.linux import nftables
from support.command import Command, on_host, wait_readable
from support.netns import Namespace

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp", "libnftables", "ip", "nft")]

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"
SERVE = (
    "import socket; s = socket.create_server(('', 80)); print('ready', flush=True); "
    "c = [s.accept()[0].sendall(b'hello') for _ in iter(int, 1)]"
)
APP = f'''
name = "shop"
[container.web]
image = "host"
command = ["{sys.executable}", "-c", "{SERVE}"]
'''


@pytest.fixture
def host() -> Iterator[Namespace]:
    made = Namespace(loopback=True)
    yield made
    made.close()


@pytest.fixture
def neighbour(host: Namespace) -> Iterator[Namespace]:
    made = Namespace()
    host.run(f"ip link add eth0 type veth peer name eth0 netns {made.pid}")
    for each, address, other in ((host, HOST, NEIGHBOUR), (made, NEIGHBOUR, HOST)):
        each.run(f"ip addr add {address}/24 dev eth0")
        each.bring_up("eth0")
        each.run(f"ip route add default via {other}")
    host.wait_until_reached(NEIGHBOUR)
    yield made
    made.close()


@pytest.fixture
def pycore(host: Namespace, tmp_path: Path) -> Iterator[Command]:
    """The command, on a host with a network of its own."""
    command = on_host(tmp_path, host.pid)
    yield command
    command.end()


def networks_of(pycore: Command, name: str) -> dict[str, Any]:
    found: dict[str, Any] = pycore.json("inspect", name)["networks"]
    return found


def apply(pycore: Command, file: str, runs: int = 1) -> None:
    """Apply, and wait until the server in it is there, as often as that has run by then: its log goes on."""
    pycore("apply", file)
    with pycore.popen("logs", "-f", "shop/web") as logs:
        assert logs.stdout
        assert [logs.stdout.readline() for _ in range(runs)] == ["ready\n"] * runs
        logs.terminate()


# -- making and looking ------------------------------------------------------------------------------------


def test_a_network_is_made_shown_and_removed(pycore: Command) -> None:
    flags = ("--subnet", "10.99.0.0/24", "--gateway", "10.99.0.9", "--label", "team=shop", "--internal")
    assert pycore("network", "create", "back", *flags, "-o", "com.docker.network.driver.mtu=1400") == "back\n"
    assert "already" in pycore.fails("network", "create", "back")
    (found,) = pycore.json("network", "inspect", "back")
    wanted = {
        "driver": "bridge",
        "internal": True,
        "mtu": 1400,
        "labels": {"team": "shop"},
        "kept": True,
        "containers": {},
    }
    assert wanted.items() <= found.items()
    assert found["subnets"][0] == "10.99.0.0/24"
    assert found["gateways"][0] == "10.99.0.9"
    assert pycore("net", "ls", "-q", "--filter", "label=team=shop") == "back\n"
    assert pycore("net", "ls", "-q", "--filter", "dangling=false") == ""
    assert [each["name"] for each in pycore.json("network", "ls", "--format", "json")] == ["back"]
    assert pycore("network", "rm", "back") == "back\n"
    assert "no such network" in pycore.fails("network", "rm", "back")
    assert pycore("network", "rm", "-f", "back") == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--subnet", "10.99.0.1/24"), "no host bits set"),
        (("-o", "nonsense=1"), "nonsense"),
        (("-o", "mtu=many"), "mtu"),
        (("--gateway", "10.1.1.1"), "in none of its"),
        (("--driver", "magic"), "magic"),
        (("--label", "=x"), "KEY=VALUE"),
    ],
)
def test_flags_that_cannot_be_meant(pycore: Command, flags: tuple[str, ...], words: str) -> None:
    assert words in pycore.fails("network", "create", "bad", *flags, status=2)
    assert pycore("network", "ls", "-q") == ""


def test_a_subnet_that_is_in_use_is_refused(pycore: Command) -> None:
    pycore("network", "create", "one", "--subnet", "10.99.0.0/24")
    assert "overlaps 10.99.0.0/24" in pycore.fails("network", "create", "two", "--subnet", "10.99.0.0/16")


# -- joining and leaving -------------------------------------------------------------------------------------


def test_a_container_joins_and_leaves_while_it_runs(pycore: Command) -> None:
    file = pycore.write(APP)
    pycore("apply", file)
    pycore("network", "create", "back", "--subnet", "10.99.0.0/24")
    before = pycore.json("inspect", "shop/web")
    pycore("network", "connect", "back", "shop/web", "--ip", "10.99.0.7", "--alias", "front")
    assert "in network back already" in pycore.fails("network", "connect", "back", "shop/web")
    back = networks_of(pycore, "shop/web")["back"]
    assert (back["device"], back["addresses"][0], back["aliases"]) == ("eth1", "10.99.0.7/24", ["front"])
    assert "10.99.0.7/24" in pycore("exec", "shop/web", "ip", "-br", "addr", "show", "eth1")
    assert "is used by shop/web" in pycore.fails("network", "rm", "back")
    pycore("network", "disconnect", "back", "shop/web")
    assert set(networks_of(pycore, "shop/web")) == {"shop_default"}
    assert "eth1" not in pycore("exec", "shop/web", "ip", "-br", "addr")
    assert "the only network" in pycore.fails("network", "disconnect", "shop_default", "shop/web")
    assert "is not in network back" in pycore.fails("network", "disconnect", "back", "shop/web")
    pycore("network", "disconnect", "-f", "back", "shop/web")
    after = pycore.json("inspect", "shop/web")
    assert after["pid"] == before["pid"]
    assert "no address of a container" in pycore.fails(
        "network", "connect", "back", "shop/web", "--ip", "10.1.1.1", status=2
    )


def test_what_the_file_says_holds_again_when_it_is_applied(pycore: Command) -> None:
    file = pycore.write(APP)
    pycore("apply", file)
    pycore("network", "create", "back")
    before = pycore.json("inspect", "shop/web")
    pycore("network", "connect", "back", "shop/web")
    (action,) = pycore.json("plan", file)["actions"]
    assert action["action"] == "update"
    pycore("apply", file)
    after = pycore.json("inspect", "shop/web")
    assert (set(after["networks"]), after["pid"]) == ({"shop_default"}, before["pid"])
    assert pycore("network", "prune").splitlines() == ["back", "nothing is removed without --force"]
    assert pycore("network", "prune", "--force") == "back\n"


def test_a_network_of_an_app_goes_with_its_containers(pycore: Command) -> None:
    pycore("apply", pycore.write(APP))
    assert "is used by shop/web" in pycore.fails("network", "rm", "shop_default")
    pycore("down", "-t", "0", "shop")
    assert pycore("network", "ls", "-q") == ""


# -- the host's own firewall -----------------------------------------------------------------------------------

RULES = """
table inet theirs {{
    chain input {{
        type filter hook input priority 0; policy drop;
        iifname != "eth0" accept
        ct state established,related accept
        tcp dport {{ {ports} }} accept
    }}
    chain forward {{
        type filter hook forward priority 0; policy {policy};
    }}
}}
"""


def firewall(host: Namespace, ports: str, policy: str = "accept") -> None:
    with host.entered():
        with contextlib.suppress(FileNotFoundError):
            nftables.run("delete table inet theirs")
        nftables.run(RULES.format(ports=ports, policy=policy))


def reached(neighbour: Namespace, port: int) -> bool:
    client = neighbour.socket()
    with client:
        try:
            client.connect((HOST, port))
        except (TimeoutError, ConnectionRefusedError):
            return False
        return client.recv(10) == b"hello"


def warnings(pycore: Command, file: str) -> list[str]:
    return [each["message"] for each in pycore.json("plan", file)["warnings"]]


def test_a_port_that_passes_the_firewall_by_is_told_and_one_of_the_proxy_obeys(
    pycore: Command, host: Namespace, neighbour: Namespace
) -> None:
    firewall(host, "22")
    ports = 'network.ports = ["8080:80", {host_port = 8081, port = 80, proxy = true}]\n'
    file = pycore.write(APP + ports)
    (told,) = warnings(pycore, file)
    assert told.startswith("the host's own firewall would drop port 8080/tcp from other hosts")
    assert "table inet theirs, chain input, policy drop" in told
    assert ":6:18: warning: the host's own firewall would drop port 8080/tcp" in pycore.run("apply", file).err
    apply(pycore, file)
    assert reached(neighbour, 8080)
    assert not reached(neighbour, 8081)
    assert answers(pycore, 8080)["other hosts by eth0"] == ("let in", "table inet theirs, chain forward, policy accept")
    assert answers(pycore, 8081)["other hosts by eth0"] == ("dropped", "table inet theirs, chain input, policy drop")
    firewall(host, "22, 8081")
    assert reached(neighbour, 8081)
    assert answers(pycore, 8081)["other hosts by eth0"][0] == "let in"
    assert pycore("apply", file) == "nothing to do\n"


def answers(pycore: Command, port: int) -> dict[str, tuple[str, str]]:
    """Source to fate and reason, of IPv4."""
    (found,) = pycore.json("network", "explain", str(port))
    return {each["source"]: (each["fate"], each["why"]) for each in found["answers"] if each["version"] == 4}


def test_rules_that_drop_what_is_forwarded_are_named(pycore: Command, host: Namespace, neighbour: Namespace) -> None:
    firewall(host, "22, 8080", "drop")
    file = pycore.write(APP + 'network.ports = ["8080:80"]\n')
    (told,) = warnings(pycore, file)
    assert "published ports are reached from this host alone and containers have no way out" in told
    assert told.endswith("table inet theirs, chain forward, policy drop")
    pycore("apply", file)
    assert not reached(neighbour, 8080)
    assert answers(pycore, 8080)["other hosts by eth0"][0] == "dropped"


def test_a_port_for_this_host_alone_needs_no_warning(pycore: Command, host: Namespace, neighbour: Namespace) -> None:
    firewall(host, "22")
    port = 'network.ports = [{host_port = 8080, port = 80, expose = "host"}]\n'
    assert warnings(pycore, pycore.write(APP + port)) == []


def test_the_next_supervisor_serves_what_the_last_one_did(
    pycore: Command, host: Namespace, neighbour: Namespace
) -> None:
    apply(pycore, pycore.write(APP + "network.ports = [{host_port = 8081, port = 80, proxy = true}]\n"))
    assert reached(neighbour, 8081)
    pidfd = os.pidfd_open(pycore.supervisor())
    os.kill(pycore.supervisor(), 9)
    assert wait_readable(pidfd, 20)
    os.close(pidfd)
    assert not reached(neighbour, 8081)
    pycore("ps")
    assert reached(neighbour, 8081)
    pycore("stop", "-t", "0", "shop/web")
    assert not reached(neighbour, 8081)


def test_a_port_of_the_proxy_belongs_to_its_container(pycore: Command, host: Namespace) -> None:
    port = "network.ports = [{host_port = 8081, port = 80, proxy = true}]\n"
    apply(pycore, pycore.write(APP + port))
    other = pycore.write(APP.replace("shop", "other") + 'network.ports = ["8081:80"]\n', "other.toml")
    assert "port 8081/tcp of the host leads to container shop/web already" in pycore.fails("apply", other, status=2)
    changed = APP.replace("[container.web]", '[container.web]\nenvironment = { A = "b" }') + port
    apply(pycore, pycore.write(changed), runs=2)
    with host.entered():
        client = socket.create_connection(("127.0.0.1", 8081), 5)
    with client:
        assert client.recv(10) == b"hello"


def test_where_the_ports_of_a_container_are(pycore: Command) -> None:
    ports = 'network.ports = ["8080:80", "127.0.0.1:9000-9001:90-91/udp", "[::1]:9005:80"]\n'
    pycore("apply", pycore.write(APP + ports))
    of_80 = "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    others = "90/udp -> 127.0.0.1:9000\n91/udp -> 127.0.0.1:9001\n80/tcp -> [::1]:9005\n"
    assert pycore("port", "web") == of_80 + others
    assert pycore("port", "shop/web", "80") == "0.0.0.0:8080\n[::]:8080\n[::1]:9005\n"
    assert pycore("port", "web", "91/udp") == "127.0.0.1:9001\n"
    (found,) = pycore.json("port", "web", "90/udp")
    assert found == {"port": 90, "protocol": "udp", "host_ip": "127.0.0.1", "host_port": 9000}
    assert "no port of the host leads to 90 of shop/web" in pycore.fails("port", "web", "90")
    assert "'http' is no port" in pycore.fails("port", "web", "http", status=2)
    pycore("kill", "web")
    assert pycore("wait", "web") == "137\n"
    assert pycore("port", "web") == ""
    assert "shop/web does not run" in pycore.fails("port", "web", "80")


def test_a_port_of_nobody_and_of_a_program(pycore: Command, host: Namespace, neighbour: Namespace) -> None:
    firewall(host, "22")
    (found,) = pycore.json("net", "explain", "7777")
    assert found["what"] == "nobody serves it"
    with host.listen(7777):
        (found,) = pycore.json("net", "explain", "7777")
    assert "no container" in found["what"]
    assert {each["fate"] for each in found["answers"]} == {"dropped"}
    assert "is no port" in pycore.fails("net", "explain", "x/tcp", status=2)
