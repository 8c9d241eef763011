"""A supervisor has plugins tidy up when nobody asks for anything: once after each time that somebody has."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pycore.resident import supervisor
from pycore.resident.supervisor import Server


class Engine:
    """One with nothing to look after, that counts how often it tidied up."""

    def __init__(self) -> None:
        self.tidied = threading.Semaphore(0)

    def busy(self) -> bool:
        return False

    def tidy(self) -> None:
        self.tidied.release()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "socket"))
        found.listen()
        yield found


def knock(listener: socket.socket) -> None:
    """Come, and go again without a word."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())


def test_one_that_stays_tidies_up_after_each_time(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "QUIET", 0.01)
    engine = Engine()
    server = Server(listener, cast(Any, engine), None)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(2):
            assert not engine.tidied.acquire(blocking=False)
            knock(listener)
            assert engine.tidied.acquire(timeout=20)
    finally:
        server.end()
        thread.join()


def test_one_that_ends_tidies_up_before(listener: socket.socket) -> None:
    engine = Engine()
    server = Server(listener, cast(Any, engine), 0.05)
    threading.Timer(0, knock, [listener]).start()
    server.run()
    assert engine.tidied.acquire(blocking=False)
