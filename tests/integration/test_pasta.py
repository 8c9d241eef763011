"""A normal user's containers with a network: a way out and published ports through pasta."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.netns import Namespace
from support.nobody import Nobody, somebody
from support.person import until

pytestmark = [pytest.mark.root, pytest.mark.needs("uidmap", "pasta", "ip")]

SERVER = (
    "import socketserver as s; H = type('H', (s.BaseRequestHandler,), "
    "{'handle': lambda self: self.request.sendall(self.request.recv(100).upper())}); "
    "s.TCPServer(('', 80), H).serve_forever()"
)
ECHO = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5353))\n"
    "while True: data, who = s.recvfrom(100); s.sendto(data.upper(), who)"
)
FAR = "192.0.2.1"


@pytest.fixture
def lan() -> Iterator[tuple[Namespace, Namespace]]:
    """A host, and another one beyond its default route."""
    host, far = Namespace(loopback=True), Namespace(loopback=True)
    host.run(f"ip link add eth9 type veth peer name eth9 netns {far.pid}")
    for place, address in ((host, "192.0.2.2/24"), (far, f"{FAR}/24")):
        place.run(f"ip address add {address} dev eth9")
        place.bring_up("eth9")
    host.run(f"ip route add default via {FAR}")
    host.wait_until_reached(FAR)
    yield host, far
    host.close()
    far.close()


@pytest.fixture(params=[True, False], ids=["with ids", "alone"])
def user(request: pytest.FixtureRequest, lan: tuple[Namespace, Namespace]) -> Iterator[Nobody]:
    with somebody(ranges=request.param, servers="127.0.0.9", namespace=lan[0].pid) as found:
        yield found


def spec(user: Nobody, *lines: str, program: str = SERVER) -> str:
    words = "\n".join(lines)
    return user.command.write(
        f'name = "app"\n[container.c]\nimage = "host"\ncommand = ["/usr/bin/python3", "-c", """{program}"""]\n'
        f'[container.c.network]\ndriver = "pasta"\n{words}\n'
    )


def ask(place: Namespace, port: int, address: str = "127.0.0.1") -> bytes:
    """What the container's server answers; it may be starting still."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        client = place.socket()
        client.settimeout(5)
        with client:
            try:
                client.connect((address, port))
                client.sendall(b"word")
                answer = client.recv(100)
            except ConnectionError:
                time.sleep(0.01)
                continue
            if answer:
                return answer
    raise AssertionError(f"nobody answers at {address}:{port}")


def pasta_of(user: Nobody) -> int:
    (record,) = (user.command.run_dir / "containers").glob("*/pasta")
    return int(record.read_text(encoding="ascii").split()[0])


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for an init to hear of it."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ports_lead_in(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    host, far = lan
    user.command("apply", spec(user, 'ports = ["8080:80", "127.0.0.1:8081:80"]'))
    assert ask(host, 8080) == b"WORD"
    assert ask(host, 8081) == b"WORD"
    assert ask(far, 8080, "192.0.2.2") == b"WORD"
    with pytest.raises(ConnectionRefusedError), far.socket() as client:
        client.connect(("192.0.2.2", 8081))
    assert "8080->80/tcp" in user.command("ps")


def test_udp_and_ranges(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    user.command("apply", spec(user, 'ports = ["5300-5301:5353-5354/udp"]', program=ECHO))
    with lan[0].socket(socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 5300))
        answer = b""
        for _ in range(50):
            try:
                client.send(b"word")
                answer = client.recv(100)
                break
            except (TimeoutError, ConnectionError):
                continue
    assert answer == b"WORD"


def test_the_way_out(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    server = lan[1].listen(7777)
    server.settimeout(20)
    seen: list[str] = []

    def serve() -> None:
        accepted, (address, _) = server.accept()
        seen.append(address)
        accepted.sendall(b"from afar\n")
        accepted.close()

    thread = threading.Thread(target=serve)
    thread.start()
    script = f"import socket; print(socket.create_connection(('{FAR}', 7777)).recv(100).decode().strip())"
    words = ("--rm", "--network", "pasta", "host", "/usr/bin/python3", "-c", script)
    assert user.command("run", *words) == "from afar\n"
    thread.join()
    server.close()
    assert seen == ["192.0.2.2"]


def test_a_name_server_on_the_hosts_loopback_is_asked(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    server = lan[0].socket(socket.SOCK_DGRAM)
    server.bind(("127.0.0.9", 53))
    server.settimeout(20)

    def serve() -> None:
        data, who = server.recvfrom(1000)
        server.sendto(b"answer to " + data, who)

    thread = threading.Thread(target=serve)
    thread.start()
    script = (
        "import socket, re; at = re.search('nameserver (.*)', open('/etc/resolv.conf').read())[1]; "
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.sendto(b'query', (at, 53)); "
        "print(s.recv(100).decode())"
    )
    words = ("--rm", "--network", "pasta", "host", "/usr/bin/python3", "-c", script)
    assert user.command("run", *words) == "answer to query\n"
    thread.join()
    server.close()


def test_the_hosts_loopback_is_out_of_reach(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    server = lan[0].listen(7777, "127.0.0.1")
    script = (
        "import socket\n"
        f"for at in ('127.0.0.1', '{FAR}', '192.0.2.2', '169.254.1.1'):\n"
        "    try: socket.create_connection((at, 7777), 2); print(at)\n"
        "    except OSError: pass\n"
    )
    assert user.command("run", "--rm", "--network", "pasta", "host", "/usr/bin/python3", "-c", script) == ""
    server.close()


def test_it_is_what_a_normal_user_gets(user: Nobody) -> None:
    devices = user.command("run", "--rm", "host", "ls", "/sys/class/net").split()
    assert devices == ["eth0", "lo"]


def test_it_ends_with_the_container(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    user.command("apply", spec(user, 'ports = ["8080:80"]'))
    first = pasta_of(user)
    user.command("restart", "-t", "0", "app/c")
    second = pasta_of(user)
    assert second != first
    assert not is_there(first)
    assert ask(lan[0], 8080) == b"WORD"
    user.command("stop", "-t", "0", "app/c")
    assert not is_there(second)
    user.command("down", "app")
    assert not list((user.command.run_dir / "containers").iterdir())


def test_it_outlives_the_supervisor_and_is_found_again(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    user.command("apply", spec(user, 'ports = ["8080:80"]'))
    pid = pasta_of(user)
    supervisor = os.pidfd_open(user.command.supervisor())
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
    os.close(supervisor)
    until(lambda: not user.command.supervisor())
    assert ask(lan[0], 8080) == b"WORD"
    assert user.command("exec", "app/c", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert pasta_of(user) == pid
    user.command("down", "-t", "0", "app")
    assert not is_there(pid)


def test_one_that_has_died_is_mended(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    user.command("apply", spec(user, 'ports = ["8080:80"]'))
    os.kill(pasta_of(user), signal.SIGKILL)
    assert "pasta" in user.command.run("doctor").out
    user.command.run("doctor", "--repair")
    assert ask(lan[0], 8080) == b"WORD"


def test_a_port_that_is_taken_or_too_low(user: Nobody, lan: tuple[Namespace, Namespace]) -> None:
    with lan[0].listen(8080, "127.0.0.1"):
        assert "8080" in user.command.fails("apply", spec(user, 'ports = ["8080:80"]'), status=2)
    assert "ip_unprivileged_port_start" in user.command.fails("apply", spec(user, 'ports = ["80:80"]'), status=2)
    assert "pasta knows nothing of sctp" in user.command.fails(
        "check", spec(user, 'ports = ["8080:80/sctp"]'), status=2
    )


def test_a_port_of_another_container_names_who_holds_it(user: Nobody) -> None:
    user.command("apply", spec(user, 'ports = ["8080:80"]'))
    other = user.command.write((user.home / "app.toml").read_text().replace('"app"', '"other"'), "other.toml")
    assert "8080/tcp of the host is in use by pas" in user.command.fails("apply", other, status=2)
    assert [row["container"] for row in user.command.json("ps", "-a")] == ["app/c"]


def test_containers_of_a_normal_user_share_a_network(user: Nobody) -> None:
    sharer = '[container.d]\nimage = "host"\ncommand = ["sleep", "1000"]\nnetwork = "container:c"\n'
    user.command("apply", user.command.write(Path(spec(user)).read_text(encoding="utf-8") + sharer))
    devices = [user.command("exec", name, "readlink", "/proc/self/ns/net") for name in ("c", "d")]
    assert devices[0] == devices[1]
    assert "eth0" in user.command("exec", "d", "ip", "-br", "address")
