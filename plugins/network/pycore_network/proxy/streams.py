"""TCP: a connection from outside and one to the container, and what goes between them in both directions."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from pycore_network.loop import IN, OUT, Handler, Loop

_CHUNK = 1 << 18
"""Bytes that are copied at once, and so the most that is ever kept of one direction."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close(2) tells the other side that the connection is broken (socket(7))."""
_TRIES = 3
"""SYNs that are sent to a container that does not answer, in some fifteen seconds (tcp(7), TCP_SYNCNT)."""
_BROKEN = select.EPOLLERR | select.EPOLLHUP


@dataclass(eq=False)
class _End:
    """One of the two connections."""

    sock: socket.socket
    pending: bytes = b""
    """What came from the other side and could not be sent yet."""
    heard: bool = False
    """Whether nothing more comes from it."""
    told: bool = False
    """Whether it knows that nothing more comes from the other side."""
    awaited: int = 0
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = self.sock.fileno()

    def send(self, data: memoryview) -> None:
        """Send what can be sent; the rest is kept, and nothing more is read for it before that is gone."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        self.pending = bytes(data[sent:])


class Stream:
    """A connection that is passed on. What one side ends for itself is ended for the other, and the rest goes on."""

    _buffer = memoryview(bytearray(_CHUNK))
    """Of all connections, since one thread serves all."""

    def __init__(
        self, loop: Loop, client: socket.socket, target: tuple[str, int], gone: Callable[[Stream], None]
    ) -> None:
        """Raises OSError where the target cannot even be tried; the client is still the caller's then."""
        self._loop, self._gone = loop, gone
        server = _connect(target)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._client, self._server = _End(client), _End(server)
        self._open = True
        self._await(self._server, OUT, self._connected)

    def close(self, *, broken: bool = False) -> None:
        """Close both sides; ``broken`` tells them so."""
        if not self._open:
            return
        self._open = False
        for end in (self._client, self._server):
            self._loop.forget(end.fd)
            if broken:
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.sock.close()
        self._gone(self)

    def _connected(self, events: int) -> None:
        if self._server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close(broken=True)
            return
        self._await(self._server, 0, self._from_server)
        self._settle()

    def _from_client(self, events: int) -> None:
        self._ready(self._client, self._server, events)

    def _from_server(self, events: int) -> None:
        self._ready(self._server, self._client, events)

    def _ready(self, end: _End, other: _End, events: int) -> None:
        try:
            if end.pending and events & (OUT | _BROKEN):
                end.send(memoryview(end.pending))
            if end.awaited & IN and events & (IN | _BROKEN):
                self._read(end, other)
            self._settle()
        except OSError:
            self.close(broken=True)

    def _read(self, end: _End, other: _End) -> None:
        try:
            count = end.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        if count:
            other.send(self._buffer[:count])
        else:
            end.heard = True

    def _settle(self) -> None:
        """Pass on what has ended, and wait for what is of use. Raises OSError where a side is gone."""
        pairs = ((self._client, self._server, self._from_client), (self._server, self._client, self._from_server))
        for end, other, _ in pairs:
            if end.heard and not other.pending and not other.told:
                other.told = True
                other.sock.shutdown(socket.SHUT_WR)
        if self._client.told and self._server.told:
            self.close()
            return
        for end, other, handler in pairs:
            self._await(end, (0 if end.heard or other.pending else IN) | (OUT if end.pending else 0), handler)

    def _await(self, end: _End, events: int, handler: Handler) -> None:
        """Where nothing is awaited its breaking is not heard of either: that would be told again and again, while what
        came before it is still on its way to the other side.
        """
        if events == end.awaited:
            return
        if not events:
            self._loop.forget(end.fd)
        elif end.awaited:
            self._loop.change(end.fd, events)
        else:
            self._loop.watch(end.fd, events, handler)
        end.awaited = events


def _connect(target: tuple[str, int]) -> socket.socket:
    """A connection that is being made. Raises OSError."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _TRIES)
    found = made.connect_ex(target)
    if found not in (0, errno.EINPROGRESS):
        made.close()
        raise OSError(found, os.strerror(found))
    return made
