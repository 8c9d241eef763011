"""Containers find each other by name on the real kernel, whatever becomes of them and of the supervisor."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest
from support.command import Command, wait_readable
from support.netns import entered
from support.resolving import SECONDS, Upstream, says

pytestmark = [pytest.mark.root, pytest.mark.needs("libnftables", "ip")]

OUTSIDE = ("127.0.53.77", 53)

SLEEPER = 'image = "host"\ncommand = ["sleep", "infinity"]\nstop_signal = "KILL"\n'


def spec(name: str, containers: dict[str, str], networks: str = "") -> str:
    tables = [f"[container.{each}]\n{SLEEPER}{more}\n" for each, more in containers.items()]
    return f'name = "{name}"\n' + "\n".join(tables) + networks


def about(pycore: Command, name: str) -> dict[str, object]:
    found = pycore.json("inspect", name)
    assert isinstance(found, dict)
    return found


def pid_of(pycore: Command, name: str) -> int:
    return int(str(about(pycore, name)["pid"]))


def server_of(pid: int) -> str:
    with open(f"/proc/{pid}/root/etc/resolv.conf", encoding="utf-8") as file:
        return next(line.split()[1] for line in file if line.startswith("nameserver"))


def ask(pid: int, name: str, kind: str = "A", *, tcp: bool = False, seconds: float = SECONDS) -> dns.message.Message:
    """What a container is answered by the server that its resolv.conf names; asked again, as the C library does."""
    server, query = server_of(pid), dns.message.make_query(name, kind)
    with entered(pid):
        if tcp:
            return dns.query.tcp(query, server, timeout=seconds)
        for _ in range(3):
            with suppress(dns.exception.Timeout):
                return dns.query.udp(query, server, timeout=seconds / 4)
        return dns.query.udp(query, server, timeout=seconds / 4)


def addresses(pid: int, name: str, kind: str = "A") -> list[str]:
    return [each.to_text() for rrset in ask(pid, name, kind).answer for each in rrset]


def own_addresses(pid: int, version: int = 4) -> list[str]:
    words = ["nsenter", "-t", str(pid), "--net", "ip", f"-{version}", "-o", "address", "show", "scope", "global"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split()[3].partition("/")[0] for line in lines]


def nft(text: str) -> str:
    return subprocess.run(["nft", "-f", "-"], input=f"{text}\n", check=True, capture_output=True, text=True).stdout


@pytest.fixture
def outside() -> Iterator[Upstream]:
    upstream = Upstream(says("192.0.2.80"), OUTSIDE)
    yield upstream
    upstream.close()


def test_by_name_alias_and_app_and_back(pycore: Command) -> None:
    text = spec("shop", {"web": "", "db": 'network.networks.default = { aliases = ["store"] }'})
    pycore("apply", pycore.write(text))
    web, db = pid_of(pycore, "shop/web"), pid_of(pycore, "shop/db")
    (address,) = own_addresses(db)
    for name in ("db", "db.shop", "store", "store.shop"):
        assert addresses(web, name) == [address]
    assert addresses(web, "db", "AAAA") == own_addresses(db, 6)
    assert [each.to_text() for each in ask(web, "db", tcp=True).answer[0]] == [address]
    back = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert addresses(web, back, "PTR") == ["db.shop."]
    words = 'import socket; print(socket.gethostbyname("db"), socket.gethostbyname("store.shop"))'
    assert pycore("exec", "shop/web", "/usr/bin/env", "python3", "-c", words).split() == [address, address]


def test_after_a_restart_and_when_it_is_made_anew(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": "", "db": ""})))
    web = pid_of(pycore, "shop/web")
    pycore("restart", "shop/db")
    assert addresses(web, "db") == own_addresses(pid_of(pycore, "shop/db"))
    pycore("stop", "shop/db")
    assert addresses(web, "db") == []
    pycore("start", "shop/db")
    assert addresses(web, "db") == own_addresses(pid_of(pycore, "shop/db"))
    fixed = 'network.networks.default = { addresses = ["10.77.7.7"] }'
    pycore("down", "shop")
    subnets = '[network.default]\nsubnets = ["10.77.7.0/24"]\n'
    pycore("apply", pycore.write(spec("shop", {"web": "", "db": fixed}, subnets)))
    assert addresses(pid_of(pycore, "shop/web"), "db") == ["10.77.7.7"]


def test_who_shares_a_network_finds_the_names_in_it(pycore: Command, outside: Upstream) -> None:
    beside = 'network = "container:web"'
    own = f'network = {{ driver = "container", container = "web", dns = ["{OUTSIDE[0]}"] }}'
    pycore("apply", pycore.write(spec("shop", {"web": "", "db": "", "beside": beside, "own": own})))
    address = own_addresses(pid_of(pycore, "shop/db"))
    assert addresses(pid_of(pycore, "shop/beside"), "db") == address
    assert server_of(pid_of(pycore, "shop/own")) == OUTSIDE[0]
    words = ("--rm", "--network", "container:shop/web", "host", "/usr/bin/env", "python3", "-c")
    asked = 'import socket; print(socket.gethostbyname("db"))'
    assert pycore("run", *words, asked).split() == address


def test_replicas_in_turn(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": "", "api": "replicas = 3"})))
    web = pid_of(pycore, "shop/web")
    each = {address for n in (1, 2, 3) for address in own_addresses(pid_of(pycore, f"shop/api-{n}"))}
    seen = [addresses(web, "api") for _ in range(6)]
    assert all(set(found) == each for found in seen)
    assert [found[0] for found in seen[:3]] == [found[0] for found in seen[3:]]
    assert {found[0] for found in seen} == each
    pycore("stop", "shop/api-2")
    assert len(addresses(web, "api")) == 2


def test_networks_know_nothing_of_each_other(pycore: Command, outside: Upstream) -> None:
    text = spec(
        "shop",
        {
            "web": f'network = {{ networks = ["front", "back"], dns = ["{OUTSIDE[0]}"] }}',
            "db": 'network = "back"',
            "proxy": f'network = {{ networks = ["front"], dns = ["{OUTSIDE[0]}"] }}',
        },
        "[network.front]\n[network.back]\ninternal = true\n",
    )
    pycore("apply", pycore.write(text))
    web, db, proxy = (pid_of(pycore, f"shop/{name}") for name in ("web", "db", "proxy"))
    assert addresses(web, "db") == own_addresses(db)
    assert addresses(proxy, "db") == ["192.0.2.80"]  # asked of the world, like any name
    assert addresses(web, "example.org") == ["192.0.2.80"]
    assert ask(db, "example.org").rcode() == dns.rcode.REFUSED
    assert set(addresses(db, "web")) < set(own_addresses(web))


def test_servers_of_the_spec_change_while_it_runs(pycore: Command, outside: Upstream) -> None:
    other = Upstream(says("198.51.100.9"), ("127.0.53.78", 53))
    try:
        pycore("apply", pycore.write(spec("shop", {"web": f'network.dns = ["{OUTSIDE[0]}"]', "db": ""})))
        web = pid_of(pycore, "shop/web")
        assert addresses(web, "example.org") == ["192.0.2.80"]
        pycore("apply", pycore.write(spec("shop", {"web": 'network.dns = ["127.0.53.78"]', "db": ""})))
        assert pid_of(pycore, "shop/web") == web
        assert addresses(web, "example.org") == ["198.51.100.9"]
        assert addresses(web, "db") == own_addresses(pid_of(pycore, "shop/db"))
    finally:
        other.close()


def test_the_files_change_while_it_runs(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": 'network.extra_hosts = { printer = "192.0.2.7" }'})))
    web = pid_of(pycore, "shop/web")
    assert "192.0.2.7\tprinter\n" in pycore("exec", "shop/web", "cat", "/etc/hosts")
    text = 'network = { extra_hosts = { plotter = "192.0.2.8" }, dns_search = ["lan"] }'
    pycore("apply", pycore.write(spec("shop", {"web": text})))
    assert pid_of(pycore, "shop/web") == web
    hosts = pycore("exec", "shop/web", "cat", "/etc/hosts")
    assert "192.0.2.8\tplotter\n" in hosts
    assert "printer" not in hosts
    assert "search lan\n" in pycore("exec", "shop/web", "cat", "/etc/resolv.conf")


@pytest.mark.parametrize("how", [9, 15])
def test_the_next_supervisor_answers_on(pycore: Command, how: int) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": "", "db": ""})))
    web = pid_of(pycore, "shop/web")
    port = (pycore.run_dir / "resolver").read_text()
    expected = addresses(web, "db")
    pid = pycore.supervisor()
    pidfd = os.pidfd_open(pid)
    os.kill(pid, how)
    assert wait_readable(pidfd, SECONDS)
    os.close(pidfd)
    pycore("ps")
    assert pid_of(pycore, "shop/web") == web
    assert addresses(web, "db") == expected
    assert (pycore.run_dir / "resolver").read_text() == port
    pycore("restart", "shop/db")
    assert addresses(web, "db") == own_addresses(pid_of(pycore, "shop/db"))


def test_while_nobody_answers_who_asks_waits_and_asks_again(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": "", "db": ""})))
    web = pid_of(pycore, "shop/web")
    expected = addresses(web, "db")
    pid = pycore.supervisor()
    pidfd = os.pidfd_open(pid)
    os.kill(pid, 9)
    assert wait_readable(pidfd, SECONDS)
    os.close(pidfd)
    with entered(web):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(0.3)
        client.connect((server_of(web), 53))
        client.send(dns.message.make_query("db", "A").to_wire())
        with pytest.raises(TimeoutError):  # and not told at once that nobody listens (ECONNREFUSED), which would end it
            client.recv(100)
    pycore("ps")
    assert addresses(web, "db") == expected


def test_a_flood_leaves_the_others_alone(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": "", "db": "", "flood": ""})))
    web, flood = pid_of(pycore, "shop/web"), pid_of(pycore, "shop/flood")
    server, over = server_of(flood), threading.Event()
    with entered(flood):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def pour() -> None:
        number = 0
        while not over.is_set():
            number += 1
            sock.sendto(dns.message.make_query(f"n{number}.shop", "A").to_wire(), (server, 53))

    pouring = threading.Thread(target=pour)
    pouring.start()
    try:
        for _ in range(20):
            assert addresses(web, "db") == own_addresses(pid_of(pycore, "shop/db"))
    finally:
        over.set()
        pouring.join()
        sock.close()


@pytest.mark.needs("nft")
def test_most_of_a_flood_is_dropped_before_anybody_has_to_look_at_it(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"flood": ""})))
    flood, table = pid_of(pycore, "shop/flood"), f"count-{os.getpid()}"
    (source,), server = own_addresses(flood), server_of(flood)
    with entered(flood):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    hook = "type filter hook input priority 100;"
    nft(f"table ip {table} {{ counter seen {{ }}; chain c {{ {hook} ip saddr {source} counter name seen; }}; }}")
    try:
        query = dns.message.make_query("web.shop", "A").to_wire()
        with client:
            for _ in range(20000):
                client.sendto(query, (server, 53))
        (seen,) = re.findall(r"packets (\d+)", nft(f"list counter ip {table} seen"))
    finally:
        nft(f"delete table ip {table}")
    assert 1 <= int(seen) < 10000


def test_nothing_of_the_loopback_but_the_resolver_is_reached(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": ""})))
    web = pid_of(pycore, "shop/web")
    port = int((pycore.run_dir / "resolver").read_text())
    with entered(web):
        direct = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with direct:
        direct.settimeout(0.3)
        for target in ((server_of(web), port), ("127.0.0.1", port)):
            direct.sendto(dns.message.make_query("web", "A").to_wire(), target)
            with pytest.raises(OSError, match=r"timed out|refused"):
                direct.recv(600)


def test_it_is_gone_with_the_last_network(pycore: Command) -> None:
    pycore("apply", pycore.write(spec("shop", {"web": ""})))
    assert (pycore.run_dir / "resolver").exists()
    pycore("down", "shop")
    assert not (pycore.run_dir / "resolver").exists()
