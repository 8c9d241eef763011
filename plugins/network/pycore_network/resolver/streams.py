"""Queries by TCP: connections, each with any number of queries after one another or at once (RFC 7766)."""

from __future__ import annotations

import select
import socket
from collections import Counter
from functools import partial

from pycore_network.loop import IN, OUT, Loop
from pycore_network.resolver.datagrams import Handle
from pycore_network.resolver.timers import Timer, Timers
from pycore_network.resolver.turns import Turns

MOST = 1024
"""Connections at once,"""
MOST_EACH = 16
"""and those of one address."""
IDLE = 10.0
"""Seconds that a connection may take for its next query, or for taking its answers."""
_AT_ONCE = 16
"""Queries of one connection that are under way; the next is read when one of them is answered."""
_CHUNK = 1 << 14
_MOST_UNSENT = 1 << 17
"""Bytes of answers that a connection has not taken; nothing more of it is read meanwhile."""
_WORN = select.EPOLLHUP | select.EPOLLERR
"""The other side has broken it off."""


class Streams:
    """A socket that listens, which stays its owner's, and its connections. For the loop's thread alone."""

    def __init__(self, loop: Loop, timers: Timers, turns: Turns, sock: socket.socket, handle: Handle) -> None:
        self.loop, self.timers, self.turns, self.handle = loop, timers, turns, handle
        self._sock = sock
        self._connections: set[_Connection] = set()
        self._each: Counter[str] = Counter()
        loop.watch(sock.fileno(), IN, self._readable)

    def _readable(self, _: int) -> None:
        try:
            sock, peer = self._sock.accept()
        except OSError:  # it has gone again, or there is no descriptor left
            return
        if len(self._connections) >= MOST or self._each[peer[0]] >= MOST_EACH:
            sock.close()
            return
        sock.setblocking(False)
        self._each[peer[0]] += 1
        self._connections.add(_Connection(self, sock, peer[0]))

    def gone(self, connection: _Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        self._each[connection.source] -= 1
        if not self._each[connection.source]:
            del self._each[connection.source]

    def close(self) -> None:
        """Hang up on all."""
        for connection in list(self._connections):
            connection.close()


class _Connection:
    def __init__(self, streams: Streams, sock: socket.socket, source: str) -> None:
        self.source = source
        self._streams, self._sock = streams, sock
        self._in, self._out = bytearray(), bytearray()
        self._under_way = 0
        self._ended = False
        """Whether nothing more will be asked."""
        self._closed = False
        self._events = IN
        self._idle: Timer | None = None
        streams.loop.watch(sock.fileno(), IN, self._ready)
        self._wait()

    def _wait(self) -> None:
        """Something has come to its end: the time begins anew."""
        if self._idle:
            self._idle.cancel()
        self._idle = self._streams.timers.after(IDLE, self.close)

    def _ready(self, events: int) -> None:
        if events & _WORN or not self._sent() or (events & IN and self._events & IN and not self._received()):
            self.close()
            return
        self._take()

    def _received(self) -> bool:
        """Take what has come; whether the connection is sound."""
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._in += data
        self._ended = not data
        return True

    def _take(self) -> None:
        """Let what has come be answered, as far as it may be under way; then wait for what can go on."""
        while (
            self._is_free() and len(self._in) >= 2 and len(self._in) >= (end := 2 + int.from_bytes(self._in[:2], "big"))
        ):
            query = bytes(self._in[2:end])
            del self._in[:end]
            self._under_way += 1
            self._wait()
            act = partial(self._streams.handle, query, self.source, True, self._reply)
            self._streams.turns.put(self.source, act, most=MOST_EACH * _AT_ONCE)
        if self._ended and not self._under_way and not self._out:
            self.close()
            return
        events = (IN if self._is_free() and not self._ended else 0) | (OUT if self._out else 0)
        if events != self._events:
            self._events = events
            self._streams.loop.change(self._sock.fileno(), events)

    def _is_free(self) -> bool:
        """Whether one more query may be answered."""
        return self._under_way < _AT_ONCE and len(self._out) < _MOST_UNSENT

    def _reply(self, answer: bytes | None) -> None:
        self._under_way -= 1
        if self._closed:
            return
        if answer is None:  # what deserves no answer deserves no connection
            self.close()
            return
        self._out += len(answer).to_bytes(2, "big") + answer
        self._wait()
        if self._sent():
            self._take()
        else:
            self.close()

    def _sent(self) -> bool:
        """Send what there is room for; whether the connection is sound."""
        try:
            if self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Hang up."""
        if self._closed:
            return
        self._closed = True
        if self._idle:
            self._idle.cancel()
        self._streams.loop.forget(self._sock.fileno())
        self._sock.close()
        self._streams.gone(self)
