"""Probes against this very host in the place of a container, and against programs that mean harm."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pycore.errors import ProbeFailed
from pycore.hookspecs import Inside, Probe
from pycore.linux import libc
from pycore_supervision.notation import Address, parse_url
from pycore_supervision.probes import HEARD, SHOWN, CommandProbe, Deadline, FileProbe, HttpProbe, TcpProbe, UnixProbe
from support.here import Here

TIMEOUT = 20.0
SHORT = 0.2

pytestmark = pytest.mark.root  # setns(2), even into the network where one is

Serve = Callable[[socket.socket], object]


def failure(probe: Probe, inside: Inside, timeout: float = TIMEOUT) -> str:
    with pytest.raises(ProbeFailed) as caught:
        probe.ask(inside, timeout)
    return caught.value.message


@contextmanager
def serving(listener: socket.socket, serve: Serve) -> Iterator[HttpProbe]:
    """A server of one connection, and the probe that asks it."""

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                while b"\r\n\r\n" not in connection.recv(4096):
                    pass
                serve(connection)
            except OSError:
                pass  # the probe has had enough

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield HttpProbe(parse_url(f":{listener.getsockname()[1]}/x"))
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def answer(text: str) -> Serve:
    return lambda connection: connection.sendall(text.encode())


def forever(piece: bytes, pause: float = 0.0) -> Serve:
    def serve(connection: socket.socket) -> None:
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return serve


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "302 Found", "399 Whatever"])
def test_http_well(here: Inside, listener: socket.socket, status: str) -> None:
    with serving(listener, answer(f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:1/\r\n\r\n")) as probe:
        assert probe.ask(here, TIMEOUT) == status


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "400 Bad Request"])
def test_http_not_well(here: Inside, listener: socket.socket, status: str) -> None:
    with serving(listener, answer(f"HTTP/1.0 {status}\r\n\r\nthe database is gone\n")) as probe:
        assert failure(probe, here).endswith(f"/x: {status}: the database is gone")


def test_http_request_is_one_that_servers_take(here: Inside, listener: socket.socket) -> None:
    heard: list[bytes] = []

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    HttpProbe(parse_url(f":{port}/x?y=1")).ask(here, TIMEOUT)
    thread.join(TIMEOUT)
    lines = heard[0].decode().split("\r\n")
    assert lines[:2] == ["GET /x?y=1 HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    assert lines[-2:] == ["", ""]


@pytest.mark.parametrize(
    "text",
    ["hello\n", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 99 OK\r\n\r\n",
     "HTTP/1.1 1000 OK\r\n\r\n", "HTTP/9 200 OK\r\n\r\n", "\x00\xff" * 10],
)  # fmt: skip
def test_what_is_no_http_answer(here: Inside, listener: socket.socket, text: str) -> None:
    with serving(listener, answer(text)) as probe:
        assert "no HTTP answer" in failure(probe, here)


def test_server_that_hangs_up(here: Inside, listener: socket.socket) -> None:
    with serving(listener, answer("")) as probe:
        assert failure(probe, here).endswith("/x: Remote end closed connection without response")


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 200 " + b"x" * 4096, b"HTTP/1.1 100 Continue\r\n\r\n", b"\0" * 4096],
    ids=["status line", "continue", "nothing"],
)
def test_answer_without_end_is_not_heard_to_the_end(here: Inside, listener: socket.socket, piece: bytes) -> None:
    with serving(listener, forever(piece)) as probe:
        assert "answer" in failure(probe, here)


def test_headers_without_end(here: Inside, listener: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        forever(b"X-More: " + b"x" * 1000 + b"\r\n")(connection)

    with serving(listener, serve) as probe:
        assert "no HTTP answer" in failure(probe, here)


def test_body_without_end_is_not_read(here: Inside, listener: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 500 Sorry\r\nContent-Length: 1000000000\r\n\r\n")
        forever(b"x" * 4096)(connection)

    with serving(listener, serve) as probe:
        assert failure(probe, here).endswith("/x: 500 Sorry: " + "x" * SHOWN)


def test_chunks_without_end(here: Inside, listener: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 500 Sorry\r\nTransfer-Encoding: chunked\r\n\r\n")
        forever(b"1;" + b"y" * 60_000 + b"\r\nx\r\n")(connection)

    with serving(listener, serve) as probe:
        assert failure(probe, here)
    assert HEARD < 1 << 20


def test_trickle_does_not_put_off_the_deadline(here: Inside, listener: socket.socket) -> None:
    """Each byte comes in time; all of them would take days."""
    with serving(listener, forever(b"H", pause=SHORT / 10)) as probe:
        assert failure(probe, here, SHORT) == f"no answer within {SHORT} s"


def test_server_that_never_answers(here: Inside, listener: socket.socket) -> None:
    with serving(listener, lambda connection: connection.recv(1)) as probe:
        assert failure(probe, here, SHORT) == f"no answer within {SHORT} s"


def test_tcp(here: Inside, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert TcpProbe(Address("127.0.0.1", port)).ask(here, TIMEOUT) == f"127.0.0.1:{port} takes connections"
    listener.close()
    assert failure(TcpProbe(Address("127.0.0.1", port)), here) == f"127.0.0.1:{port}: Connection refused"


def test_tcp_of_a_full_queue_ends_at_the_deadline(here: Inside, listener: socket.socket) -> None:
    listener.listen(0)
    address = listener.getsockname()
    with socket.create_connection(address), socket.socket() as second:
        second.setblocking(False)
        second.connect_ex(address)
        assert failure(TcpProbe(Address(*address)), here, SHORT) == f"no answer within {SHORT} s"


def test_tcp_of_version_6(here: Inside) -> None:
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this host has no IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert TcpProbe(Address("::1", server.getsockname()[1])).ask(here, TIMEOUT)


def test_container_that_has_ended(ended: Inside, tmp_path: Path) -> None:
    """Its process id is another process's by now: this one's, which must not be taken for it."""
    (tmp_path / "ready").touch()
    for probe in (
        TcpProbe(Address("127.0.0.1", 1)),
        FileProbe(str(tmp_path / "ready")),
        UnixProbe("/x"),
        HttpProbe(parse_url(":1")),
    ):
        assert failure(probe, ended) == "the container has ended"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_unix(here: Inside, tmp_path: Path, kind: int) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(path)
        if kind != socket.SOCK_DGRAM:
            assert failure(UnixProbe(path), here) == f"{path}: Connection refused"
            server.listen()
        assert UnixProbe(path).ask(here, TIMEOUT) == f"{path} takes connections"
    assert failure(UnixProbe(path), here) == f"{path}: Connection refused"


def test_unix_of_a_full_queue(here: Inside, tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(path)
        server.listen(0)
        first.connect(path)
        assert failure(UnixProbe(path), here, SHORT)


def test_unix_with_a_long_path(here: Inside, tmp_path: Path) -> None:
    """Longer than the 108 bytes of unix(7): nobody inside a container knows where its root is."""
    place = tmp_path / ("x" * 100)
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        fd = os.open(place, os.O_PATH)
        server.bind(f"/proc/self/fd/{fd}/s")
        os.close(fd)
        server.listen()
        assert UnixProbe(f"{place}/s").ask(here, TIMEOUT)


def test_what_is_no_socket(here: Inside, tmp_path: Path) -> None:
    for path in ("/dev/null", str(tmp_path)):
        assert failure(UnixProbe(path), here) == f"{path}: is not a socket"
    assert failure(UnixProbe("/no/such"), here) == "/no/such: No such file or directory"


def test_file(here: Inside, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert failure(FileProbe(str(path)), here) == f"{path}: No such file or directory"
    path.touch()
    assert FileProbe(str(path)).ask(here, TIMEOUT) == f"{path} is there"


def test_pipe_does_not_block(here: Inside, tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    assert FileProbe(path).ask(here, TIMEOUT)
    assert failure(UnixProbe(path), here) == f"{path}: is not a socket"


def test_magic_links_lead_nowhere(here: Inside) -> None:
    assert failure(FileProbe("/proc/self/root/etc"), here).startswith("/proc/self/root/etc: ")
    assert failure(FileProbe("/proc/self/exe"), here).startswith("/proc/self/exe: ")


def test_link_that_leads_to_itself(here: Inside, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in failure(FileProbe(str(tmp_path / "loop")), here)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Here]:
    """A process whose root is a directory, as a container's is."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "ready").touch()
    code = f"import os; os.chroot({str(root)!r}); print(flush=True); os.read(0, 1)"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        there = Here(process.pid, os.pidfd_open(process.pid))
        yield there
        process.communicate(b"\n")
    os.close(there.pidfd)


@pytest.mark.parametrize("link", ["/host/secret", "../../../../../../../../../host/secret", "/proc/1/root/host/secret"])
def test_links_never_lead_out(elsewhere: Here, tmp_path: Path, link: str) -> None:
    """What a container plants, such as a link to a socket of the host, is looked up in the container."""
    secret = str(tmp_path / "secret")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(secret)
        server.listen()
        (tmp_path / "root" / "x.sock").symlink_to(link.replace("/host/secret", secret))
        assert failure(UnixProbe("/x.sock"), elsewhere) == "/x.sock: No such file or directory"
        assert failure(FileProbe("/x.sock"), elsewhere) == "/x.sock: No such file or directory"
        assert FileProbe("/ready").ask(elsewhere, TIMEOUT)


def test_links_lead_to_what_is_inside(elsewhere: Here, tmp_path: Path) -> None:
    (tmp_path / "root" / "link").symlink_to("/../../ready")
    assert FileProbe("/link").ask(elsewhere, TIMEOUT)


def test_name_that_is_exchanged_all_the_time(elsewhere: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """openat2(2) gives up on a path that changes while it is resolved; a container must not make us try for good."""

    def busy(*_: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(libc, "openat2", busy)
    assert failure(FileProbe("/ready"), elsewhere) == "/ready: is being renamed all the time"


def test_descriptor_that_is_no_pidfd(tmp_path: Path) -> None:
    """Nothing is left open by a mistake of the caller's."""
    before = os.listdir("/proc/self/fd")
    with open(os.devnull, encoding="utf-8") as null:
        for probe in (FileProbe("/"), TcpProbe(Address("127.0.0.1", 1))):
            assert failure(probe, Here(os.getpid(), null.fileno()))
    assert os.listdir("/proc/self/fd") == before


def test_command(here: Inside) -> None:
    assert CommandProbe(("echo", "fine")).ask(here, TIMEOUT) == "fine"
    assert failure(CommandProbe(("sh", "-c", "echo no; exit 3")), here) == "sh ended with status 3: no"
    assert failure(CommandProbe(("sh", "-c", "kill -9 $$")), here) == "sh ended with signal 9"
    assert failure(CommandProbe(("sleep", "30")), here, SHORT) == f"no answer within {SHORT} s"


def test_command_of_which_nobody_knows_the_end() -> None:
    class Unknown:
        pid = pidfd = -1

        def execute(self, command: object, timeout: float) -> tuple[None, bytes]:
            return None, b""

    assert failure(CommandProbe(("x",)), Unknown()) == "x ended with an unknown status"


def test_this_thread_stays_where_it_is(here: Inside, listener: socket.socket) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    TcpProbe(Address(*listener.getsockname())).ask(here, TIMEOUT)
    assert os.readlink("/proc/thread-self/ns/net") == before
    assert not [thread for thread in threading.enumerate() if thread.name == "pycore-inside"]


def test_deadline() -> None:
    assert 0 < Deadline(TIMEOUT).left() <= TIMEOUT
    with pytest.raises(ProbeFailed, match="no answer within 0 s"):
        Deadline(0).left()
