"""Which version makes way for which, and who may be killed for it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from pycore.client import SOCKET_FILE, VERSION
from pycore.launch.address import listen
from pycore.resident.notify import Notifier
from pycore.resident.succession import make_way, order_of, refusal
from pycore.resident.supervisor import RETIRE, receive

IN_ORDER = [
    "0.1.dev3/2", "0.1a1/2", "0.1.0b2/2", "0.1rc1/2", "0.1.0/1", "0.1/2", "0.1.post1/2", "0.1.1/2", "0.2/1", "0.10/2",
    "1.0/2", "999.0/3",
]  # fmt: skip


def test_versions_have_an_order() -> None:
    assert sorted(IN_ORDER, key=order_of) == IN_ORDER
    assert order_of("0.1.0/2") == order_of("0.1/2")
    for odd in ("", "/", "x", "1..2/y", "9" * 5000, "1.0+local.7/2", "\udcff"):
        order_of(odd)


def test_only_a_newer_one_replaces_another() -> None:
    assert not refusal("999.0/2", "newer")
    assert refusal("0.0.1/2", "newer")
    assert refusal(VERSION, "newer")
    assert not refusal(VERSION, "equals"), "systemd's takes the place of one in the background"
    assert refusal("0.0.1/2", "equals")


@pytest.fixture
def stubborn(tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock and does not end."""
    lock = tmp_path / "lock"
    lock.touch()
    with lock.open() as file:
        process = subprocess.Popen(["sleep", "1000"], stdin=file)
    lock.write_text(str(process.pid))
    return process


def answering(directory: Path, answer: bytes) -> tuple[socket.socket, list[list[str]]]:
    """A supervisor that answers and never hangs up; what it was asked."""
    listener, asked = listen(directory, SOCKET_FILE), list[list[str]]()
    held: list[socket.socket] = []

    def serve() -> None:
        connection, _ = listener.accept()
        fields, fds = receive(connection)
        for fd in fds:
            os.close(fd)
        asked.append(fields)
        held.append(connection)
        connection.sendall(answer)
        while connection.recv(1):
            pass
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener, asked


def test_what_does_not_end_is_killed(
    tmp_path: Path, stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCORE_PATIENCE", "0.05")
    listener, asked = answering(tmp_path, bytes(4))
    with listener:
        assert make_way(str(tmp_path))
    assert asked == [[RETIRE, VERSION, "newer"]]
    assert stubborn.wait(20) == -9


def test_one_that_cannot_answer_is_asked_by_a_signal(
    tmp_path: Path, stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade has replaced the files from which it would have loaded what it answers with."""
    monkeypatch.setenv("PYCORE_PATIENCE", "20")
    with listen(tmp_path, SOCKET_FILE) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            _, fds = receive(connection)
            for fd in fds:
                os.close(fd)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        assert make_way(str(tmp_path))
    assert stubborn.wait(20) == -15


def test_nobody_else_is_killed(
    tmp_path: Path, stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number in the lock file is of a process that does not hold it: the supervisor has ended, and it is reused."""
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").write_text(str(stubborn.pid))
    monkeypatch.setenv("PYCORE_PATIENCE", "0.05")
    listener, _ = answering(tmp_path, bytes(4))
    with listener:
        assert make_way(str(tmp_path))
    assert stubborn.poll() is None
    stubborn.kill()
    stubborn.wait()


def test_one_that_refuses_stays(tmp_path: Path) -> None:
    listener, _ = answering(tmp_path, (1).to_bytes(4, "big"))
    with listener:
        assert not make_way(str(tmp_path), equals=True)


def test_there_is_nothing_to_do_where_nobody_is(tmp_path: Path) -> None:
    assert make_way(str(tmp_path))


@pytest.mark.parametrize("frame", [b"", b"\0", b"\xff\xff\xff\xff", b"\0\0\0\x05ab"])
def test_what_is_no_request_is_refused(frame: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        null = os.open(os.devnull, os.O_RDWR)
        socket.send_fds(theirs, [frame or b"x"], [null] * 3)
        os.close(null)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match=r"no request|too long|cut off"):
            receive(ours)


def test_systemd_is_told_once_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not Notifier()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        assert "NOTIFY_SOCKET" not in os.environ
        notifier.tell("READY=1", "STATUS=x")
        notifier.tell("STATUS=y")
        notifier.tell("STATUS=y")
        notifier.tell("STOPPING=1")
        assert [listener.recv(100) for _ in range(3)] == [b"READY=1\nSTATUS=x", b"STATUS=y", b"STOPPING=1"]
    notifier.tell("STATUS=nobody listens any more")
