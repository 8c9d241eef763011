"""Ports that the proxy serves: sockets of this host on loopback, on both sides."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel
from pycore.ops import Context, from_record, to_record
from pycore_network import proxy as service
from pycore_network.loop import IN
from pycore_network.ops.serve import Serve
from pycore_network.proxy import datagrams, relay
from pycore_network.proxy.relay import Relay, Target

MANY = 8 << 20
SECONDS = 20


@pytest.fixture
def proxy() -> Iterator[Relay]:
    made = Relay()
    yield made
    made.close()
    assert "pycore-proxy" not in {thread.name for thread in threading.enumerate()}


def server(address: str = "127.0.0.1") -> socket.socket:
    """What a container would have."""
    made = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.settimeout(SECONDS)
    return made


def free(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free, and that the kernel gives to nobody who does not ask for that one."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


def publish(proxy: Relay, listener: socket.socket, address: str = "", **fields: object) -> int:
    port = free()
    host, inside = listener.getsockname()[:2]
    assert proxy.serve({("tcp", address, port): Target(host, inside, **fields)}) == {}  # type: ignore[arg-type]
    return port


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), SECONDS)


def receive_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while chunk := sock.recv(1 << 16):
        data += chunk
    return bytes(data)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_families_reach_it_and_each_side_can_end_its_own_direction_first(proxy: Relay, address: str) -> None:
    with server() as listener, connect(publish(proxy, listener), address) as client:
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(accepted) == b"question"
            accepted.sendall(b"answer")
            accepted.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"answer"


def test_more_than_any_buffer_holds_arrives_whole_while_nobody_reads_for_a_while(proxy: Relay) -> None:
    data = os.urandom(MANY)
    with server() as listener, connect(publish(proxy, listener)) as client:
        accepted, _ = listener.accept()
        with accepted:
            sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
            back = threading.Thread(target=lambda: (accepted.sendall(data[::-1]), accepted.shutdown(socket.SHUT_WR)))
            for each in (sender, back):
                each.start()
            assert receive_all(accepted) == data
            assert receive_all(client) == data[::-1]
            for each in (sender, back):
                each.join()


def test_a_broken_connection_is_broken_for_the_other_side(proxy: Relay) -> None:
    with server() as listener, connect(publish(proxy, listener)) as client:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"
        accepted.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_what_was_sent_before_a_close_still_arrives(proxy: Relay) -> None:
    with server() as listener:
        client = connect(publish(proxy, listener))
        client.sendall(b"last words" * 1000)
        client.close()
        accepted, _ = listener.accept()
        with accepted:
            assert receive_all(accepted) == b"last words" * 1000


def test_a_container_where_nobody_listens_is_a_port_where_nobody_answers(proxy: Relay) -> None:
    with server() as listener:
        port = publish(proxy, listener)
    with pytest.raises(ConnectionResetError), connect(port) as client:
        client.recv(1)


def test_a_port_that_leads_elsewhere_goes_on_and_one_that_is_withdrawn_does_not(proxy: Relay) -> None:
    with server() as one, server() as other:
        port = publish(proxy, one)
        key = ("tcp", "", port)
        client = connect(port)
        accepted, _ = one.accept()
        proxy.serve({key: Target(*other.getsockname())})
        with client, accepted, pytest.raises(ConnectionResetError):
            client.recv(1)
        with connect(port):
            other.accept()[0].close()
        proxy.serve({})
        with pytest.raises(ConnectionRefusedError):
            connect(port)


@contextlib.contextmanager
def busy(proxy: Relay) -> Generator[None]:
    """While the loop's thread has something else to do; what comes meanwhile it finds in the order in which it came."""
    assert proxy.work
    loop, begun, over = proxy.work.loop, threading.Event(), threading.Event()

    def work(_: int) -> None:
        loop.forget(descriptor)
        begun.set()
        over.wait(SECONDS)

    descriptor = os.eventfd(1)
    loop.post(lambda: loop.watch(descriptor, IN, work))
    assert begun.wait(SECONDS)
    yield
    over.set()
    os.close(descriptor)


def test_a_connection_that_comes_while_a_port_is_led_elsewhere_is_not_broken(proxy: Relay) -> None:
    with server() as old, server() as new:
        port = publish(proxy, old)
        with busy(proxy):
            client = connect(port)
            assert proxy.serve({("tcp", "", port): Target(*new.getsockname())}) == {}
        accepted, _ = new.accept()
        with client, accepted:
            client.sendall(b"question")
            assert accepted.recv(20) == b"question"
            accepted.sendall(b"answer")
            assert client.recv(20) == b"answer"


def test_a_port_is_free_once_it_is_not_served_any_more(proxy: Relay) -> None:
    with server() as listener:
        target = Target(*listener.getsockname())
        stays, moves = (("tcp", "127.0.0.1", free()) for _ in range(2))
        proxy.serve({stays: target, moves: target})
        assert proxy.work
        proxy.work.loop.post(lambda: time.sleep(0.2))
        proxy.serve({stays: target})
        assert proxy.serve({stays: target, moves: target}) == {}


def test_another_port_is_left_alone(proxy: Relay) -> None:
    with server() as one, server() as other:
        port, later = free(), free()
        first = {("tcp", "127.0.0.1", port): Target(*one.getsockname())}
        assert proxy.serve(first) == {}
        with connect(port) as client, one.accept()[0] as accepted:
            proxy.serve({**first, ("tcp", "127.0.0.1", later): Target(*other.getsockname())})
            proxy.serve(first)
            client.sendall(b"still here")
            assert accepted.recv(20) == b"still here"


def test_a_port_that_somebody_has_is_told_and_keeps_no_other_from_being_served(proxy: Relay) -> None:
    with server() as taken, server() as listener:
        port, used = free(), taken.getsockname()[1]
        target = Target(*listener.getsockname())
        failed = proxy.serve({("tcp", "127.0.0.1", used): target, ("tcp", "127.0.0.1", port): target})
        assert list(failed) == [("tcp", "127.0.0.1", used)]
        with connect(port), listener.accept()[0]:
            pass


def test_many_wait_while_there_is_no_room_and_come_in_turn(proxy: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MOST", 2)
    monkeypatch.setattr(relay, "_PAUSE", 0.01)
    with server() as listener:
        port = publish(proxy, listener)
        clients = [connect(port) for _ in range(6)]
        for number, client in enumerate(clients):
            client.sendall(bytes([number]))
        got: set[int] = set()
        for _ in clients:
            with listener.accept()[0] as accepted:
                (number,) = accepted.recv(1)
            clients[number].close()
            got.add(number)
        assert got == set(range(6))


def test_nothing_is_left_open(proxy: Relay) -> None:
    with server() as listener:
        port = publish(proxy, listener)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with connect(port) as client, listener.accept()[0]:
                client.sendall(b"x")
        proxy.close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) < before


# -- UDP ------------------------------------------------------------------------------------------------


def datagram(address: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 0))
    made.settimeout(SECONDS)
    return made


@pytest.mark.parametrize(
    ("bound", "asked", "client"),
    [
        ("", "127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.2", "127.0.0.1"),
        ("", "::1", "::1"),
        ("127.0.0.2", "127.0.0.2", "127.0.0.1"),
    ],
)
def test_an_answer_comes_from_the_address_that_was_asked(proxy: Relay, bound: str, asked: str, client: str) -> None:
    port = free(socket.SOCK_DGRAM)
    with datagram() as inside, datagram(client) as one, datagram(client) as other:
        assert proxy.serve({("udp", bound, port): Target(*inside.getsockname())}) == {}
        for sock in (one, other):
            sock.sendto(b"question", (asked, port))
            data, where = inside.recvfrom(100)
            inside.sendto(data + b" answered", where)
            answer, source = sock.recvfrom(100)
            assert (answer, source[:2]) == (b"question answered", (asked, port))


def test_a_datagram_is_for_whom_the_port_leads_to_by_now(proxy: Relay) -> None:
    port = free(socket.SOCK_DGRAM)
    with datagram() as old, datagram() as new, datagram() as client:
        proxy.serve({("udp", "127.0.0.1", port): Target(*old.getsockname())})
        client.sendto(b"before", ("127.0.0.1", port))
        assert old.recv(10) == b"before"
        with busy(proxy):
            client.sendto(b"after", ("127.0.0.1", port))
            proxy.serve({("udp", "127.0.0.1", port): Target(*new.getsockname())})
        assert new.recv(10) == b"after"


def test_clients_that_are_silent_make_room(proxy: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "MOST", 2)
    port = free(socket.SOCK_DGRAM)
    with datagram() as inside:
        proxy.serve({("udp", "127.0.0.1", port): Target(*inside.getsockname())})
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            with datagram() as client:
                client.sendto(b"x", ("127.0.0.1", port))
                inside.recv(10)
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_silent_client_is_forgotten_in_time(proxy: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "IDLE", 0.0)
    port = free(socket.SOCK_DGRAM)
    with datagram() as inside, datagram() as client:
        proxy.serve({("udp", "127.0.0.1", port): Target(*inside.getsockname())})
        before = len(os.listdir("/proc/self/fd"))
        client.sendto(b"x", ("127.0.0.1", port))
        inside.recv(10)
        for _ in range(2):  # it does what it is told in the order of telling, and looks at the time after each
            done = threading.Event()
            assert proxy.work
            proxy.work.loop.post(done.set)
            assert done.wait(SECONDS)
        assert len(os.listdir("/proc/self/fd")) == before


# -- what operations say -------------------------------------------------------------------------------


def serve(directory: Path, port: int, target: tuple[str, int], count: int = 1) -> Serve:
    return Serve("tcp", "127.0.0.1", port, *target, count, "all", (), str(directory), "c0ffee", "shop/web")


def test_what_operations_have_written_down_is_served_also_by_the_next_engine(tmp_path: Path) -> None:
    with server() as listener:
        port, ctx = free(), Context(Kernel(), "shop/web")
        host = Host(Kernel(), tmp_path, tmp_path)
        operation = serve(tmp_path / "proxy", port, listener.getsockname())
        assert from_record(to_record(operation)) == operation
        first, second = service.pycore_service(host), service.pycore_service(host)
        first.changed()
        assert "pycore-proxy" not in {thread.name for thread in threading.enumerate()}
        operation.do(ctx)
        first.changed()
        assert operation.probe(ctx)
        with connect(port), listener.accept()[0]:
            pass
        with pytest.raises(PycoreError, match=f"cannot serve port {port}/tcp: Address already in use"):
            second.changed()
        first.close()
        second.changed()
        with connect(port), listener.accept()[0]:
            pass
        operation.undo(ctx)
        operation.undo(ctx)
        second.changed()
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        assert operation.probe(ctx) is False


def test_a_range_is_served_port_by_port(tmp_path: Path) -> None:
    with server() as listener:
        port = free()
        operation = serve(tmp_path / "proxy", port, ("127.0.0.1", listener.getsockname()[1] - 1), count=2)
        operation.do(Context(Kernel(), "shop/web"))
        proxy = service.pycore_service(Host(Kernel(), tmp_path, tmp_path))
        proxy.changed()
        with connect(port + 1), listener.accept()[0]:
            pass
        proxy.close()


# -- who may -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expose", "allowed", "client", "wanted"),
    [
        ("all", (), "198.51.100.7", True),
        ("host", (), "198.51.100.7", False),
        ("host", (), "192.0.2.1", True),
        ("host", (), "::ffff:127.0.0.1", True),
        ("lan", (), "::ffff:10.1.2.3", True),
        ("lan", (), "fe80::1%eth0", True),
        ("lan", (), "2001:db8::1", False),
        ("lan", (), "100.64.0.1", True),
        ("all", ("10.0.0.0/8",), "10.1.2.3", True),
        ("all", ("10.0.0.0/8",), "11.1.2.3", False),
        ("all", ("10.0.0.0/8",), "2001:db8::1", False),
        ("all", ("2001:db8::/32",), "2001:db8::1", True),
    ],
)
def test_who_may_use_a_port(expose: str, allowed: tuple[str, ...], client: str, wanted: bool) -> None:
    assert Target("10.0.0.2", 80, expose, allowed).admits(client, "::ffff:192.0.2.1") is wanted
