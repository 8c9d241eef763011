"""An HTTP server on loopback that does what a test says, also what no server should."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    cut_at: int | None = None
    """Bytes of the body after which the connection breaks off."""
    stall_at: int | None = None
    """Bytes of the body after which nothing more comes, until the server ends."""


CUT = Reply(status=0)
"""The connection breaks off without an answer."""


@dataclass(frozen=True)
class Asked:
    """What came from a client."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Scripted:
    """``replies`` are by method and path: ``GET /v2/``, with the query or without. The last one of a list is given
    again and again; what is not there is not found.
    """

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(self)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def on(self, request: str, *replies: Reply) -> None:
        self.replies[request] = list(replies)

    def requests(self, start: str = "") -> list[str]:
        """Those that begin so, as ``GET /v2/``."""
        return [line for one in self.asked if (line := f"{one.method} {one.path}").startswith(start)]

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            replies = self.replies.get(f"{asked.method} {asked.path}")
            if replies is None:
                replies = self.replies.get(f"{asked.method} {asked.path.partition('?')[0]}", [Reply(404)])
            return replies.pop(0) if len(replies) > 1 else replies[0]

    @contextmanager
    def running(self) -> Iterator[Scripted]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, script: Scripted) -> None:
        self.script = script
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    def server_close(self) -> None:
        for one in list(self.open):  # a client may keep its connection for later
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def parse_request(self) -> bool:
        """Any method, with one answer for all."""
        if not super().parse_request():
            return False
        body = self._body()
        self._send(self.server.script.reply(Asked(self.command, self.path, dict(self.headers), body)))
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, reply: Reply) -> None:
        if reply.status == 0:
            self._cut()
            return
        lines = [f"HTTP/1.1 {reply.status} So"]
        headers = {"Content-Length": str(len(reply.body)), **reply.headers}
        lines += [f"{name}: {value}" for name, value in headers.items() if value]
        stop = reply.cut_at if reply.cut_at is not None else reply.stall_at
        body = b"" if self.command == "HEAD" else reply.body[:stop]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        if reply.stall_at is not None:
            self.server.script.over.wait()
        if stop is not None:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client was faster
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        """Nothing: the test looks at what was asked."""
