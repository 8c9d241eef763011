"""A way to a server on loopback on which connections break off."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE = 1 << 16


class Cutting:
    """Passes bytes on, both ways. ``allow`` says how many may still go through before everything breaks off, once."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._lock = threading.Lock()
        self._left: int | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.cuts = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def allow(self, count: int) -> None:
        with self._lock:
            self._left = count

    @contextmanager
    def running(self) -> Iterator[Cutting]:
        self._start(self._accept)
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._break_off()
            for thread in self._threads:
                thread.join()
            for one in (self._listener, *self._sockets):
                one.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                self._start(self._pass_on, client, server)
                self._start(self._pass_on, server, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                target.sendall(self._passing(data))
            target.shutdown(socket.SHUT_WR)

    def _passing(self, data: bytes) -> bytes:
        with self._lock:
            if self._left is None:
                return data
            self._left -= len(data)
            if self._left >= 0:
                return data
            self._left = None
            self.cuts += 1
        self._break_off()
        raise ConnectionError

    def _break_off(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
