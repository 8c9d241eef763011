"""Queries to other servers: several in turn, UDP first, and nothing believed that was not asked for.

A query goes out of a port that the kernel picks by chance, under an id of chance, from a socket that hears its one
server alone: who wants to be believed in that one's place has to guess both, within the time of one answer.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from pycore_network.loop import IN, OUT, Loop
from pycore_network.resolver import wire
from pycore_network.resolver.timers import Timer, Timers
from pycore_network.resolver.upstream import Server
from pycore_network.resolver.wire import Query

MOST = 512
"""Queries that are under way at once,"""
MOST_EACH = 64
"""and those of one container."""
TRY = 1.0
"""Seconds after which the next server is asked as well; an answer of the first counts still."""
GIVE_UP = 4.5
"""Seconds after which there is no answer: the C library asks again after five."""
SLOW = 30.0
"""Seconds for which a server that did not answer is asked last."""
_ORDINARY = 1232
"""Bytes that every server sends in a datagram (dnsflagday.net/2020). Where there is room for more, it is fetched."""

Done = Callable[[bytes | None], None]
"""Called once with the answer, under the id of the query; None where there is none."""


class Forwarder:
    """All queries that are under way. For the loop's thread alone."""

    def __init__(self, loop: Loop, timers: Timers) -> None:
        self.loop, self.timers = loop, timers
        self._asking: set[_Asking] = set()
        self._each: Counter[str] = Counter()
        self._slow: dict[Server, Timer] = {}

    def ask(self, who: str, query: Query, servers: Sequence[Server], done: Done) -> None:
        """Ask servers what a container, given by its id, wants to know; with too much under way, nobody is asked."""
        if not servers or len(self._asking) >= MOST or self._each[who] >= MOST_EACH:
            done(None)
            return
        self._each[who] += 1
        ordered = sorted(servers, key=self._slow.__contains__)
        asking = _Asking(self, query, ordered, partial(self._done, who, done))
        self._asking.add(asking)
        asking.begin()

    def _done(self, who: str, done: Done, asking: _Asking, response: bytes | None) -> None:
        self._asking.discard(asking)
        self._each[who] -= 1
        if not self._each[who]:
            del self._each[who]
        done(response)

    def is_slow(self, server: Server) -> None:
        """A server has not answered in time."""
        if server not in self._slow:
            self._slow[server] = self.timers.after(SLOW, partial(self._slow.__delitem__, server))

    def has_answered(self, server: Server) -> None:
        """A server has answered."""
        timer = self._slow.pop(server, None)
        if timer:
            timer.cancel()

    def close(self) -> None:
        """Ask nobody any more; nobody is answered."""
        for asking in self._asking:
            asking.close()
        self._asking.clear()


class _Asking:
    """One query, on its way to one server after the other."""

    def __init__(
        self,
        forwarder: Forwarder,
        query: Query,
        servers: Sequence[Server],
        done: Callable[[_Asking, bytes | None], None],
    ) -> None:
        self.forwarder, self.query, self._servers, self._done = forwarder, query, servers, done
        self._tries: list[_Datagram | _Stream] = []
        self._asked = 0
        self._refusals: dict[Server, bytes | None] = {}
        """What servers said that cannot tell; None of those that cannot be reached."""
        self._part: bytes | None = None
        """As much of the answer as there was room for in a datagram."""
        self._by_stream = query.room > wire.LONGEST
        self._end = forwarder.timers.after(GIVE_UP, partial(self._finish, None))
        self._next: Timer | None = None

    def begin(self) -> None:
        """Ask the first."""
        self._ask_next()

    def _ask_next(self) -> None:
        """Ask one more, until one answers; whom nobody reached yet first."""
        left = [server for server in self._servers if server not in self._refusals]
        if not left:
            said = [response for response in self._refusals.values() if response]
            self._finish(said[-1] if said else None)
            return
        server = left[self._asked % len(left)]
        self._asked += 1
        self._next = self.forwarder.timers.after(TRY, partial(self._not_yet, server))
        self._try(_Stream if self._by_stream else _Datagram, server)

    def _not_yet(self, server: Server) -> None:
        self.forwarder.is_slow(server)
        self._ask_next()

    def _try(self, kind: type[_Datagram] | type[_Stream], server: Server) -> None:
        attempt = kind(self, server)
        self._tries.append(attempt)
        try:
            attempt.begin()
        except OSError:
            self.heard(attempt, None)

    def heard(self, attempt: _Datagram | _Stream, response: bytes | None) -> None:
        """What a server said; None where it cannot be reached."""
        self._tries.remove(attempt)
        attempt.close()
        if response is None or wire.has_failed(response):
            self._refusals[attempt.server] = response
            self._ask_other()
            return
        self.forwarder.has_answered(attempt.server)
        if wire.is_cut(response) and isinstance(attempt, _Datagram) and self.query.room > _ORDINARY:
            self._ask_whole(attempt.server, response)
        else:
            self._finish(response)

    def _ask_other(self) -> None:
        """One server has said that it cannot tell: no time is lost."""
        if self._next:
            self._next.cancel()
        if self._part:
            self._finish(None)
        else:
            self._ask_next()

    def _ask_whole(self, server: Server, part: bytes) -> None:
        """There is more than a server puts into a datagram; where it is not to be had, the part counts."""
        if self._next:
            self._next.cancel()
        if not self._part:
            self._part = part
            self._try(_Stream, server)

    def _finish(self, response: bytes | None) -> None:
        self.close()
        response = response or self._part
        self._done(self, response and wire.with_id(response, self.query.wire[:2]))

    def close(self) -> None:
        """Ask nobody any more."""
        self._end.cancel()
        if self._next:
            self._next.cancel()
        for attempt in self._tries:
            attempt.close()
        self._tries.clear()


class _Datagram:
    """One server, asked by UDP."""

    def __init__(self, asking: _Asking, server: Server) -> None:
        self._asking, self.server = asking, server
        self._identity = os.urandom(2)
        self._sock: socket.socket | None = None

    def begin(self) -> None:
        """Ask. Raises OSError where that is not possible at all."""
        self._sock = _socket(self.server, socket.SOCK_DGRAM)
        self._sock.connect(self.server)
        self._sock.send(wire.with_id(self._asking.query.wire, self._identity))
        self._asking.forwarder.loop.watch(self._sock.fileno(), IN, self._readable)

    def _readable(self, _: int) -> None:
        assert self._sock
        try:
            response = self._sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._asking.heard(self, None)
            return
        if wire.answers(response, self._asking.query, self._identity):
            self._asking.heard(self, response)

    def close(self) -> None:
        """Listen no more."""
        if self._sock:
            self._asking.forwarder.loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None


class _Stream:
    """One server, asked by TCP."""

    def __init__(self, asking: _Asking, server: Server) -> None:
        self._asking, self.server = asking, server
        self._identity = os.urandom(2)
        self._sock: socket.socket | None = None
        query = wire.with_id(asking.query.wire, self._identity)
        self._out = len(query).to_bytes(2, "big") + query
        self._in = bytearray()

    def begin(self) -> None:
        """Connect. Raises OSError where that is not possible at all."""
        self._sock = _socket(self.server, socket.SOCK_STREAM)
        with suppress(BlockingIOError):
            self._sock.connect(self.server)
        self._asking.forwarder.loop.watch(self._sock.fileno(), OUT, self._writable)

    def _writable(self, _: int) -> None:
        assert self._sock
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._asking.heard(self, None)
            return
        if not self._out:
            loop, fd = self._asking.forwarder.loop, self._sock.fileno()
            loop.forget(fd)
            loop.watch(fd, IN, self._readable)

    def _readable(self, _: int) -> None:
        assert self._sock
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        whole = len(self._in) >= 2 and len(self._in) >= 2 + int.from_bytes(self._in[:2], "big")
        if whole:
            response = bytes(self._in[2 : 2 + int.from_bytes(self._in[:2], "big")])
            sound = wire.answers(response, self._asking.query, self._identity)
            self._asking.heard(self, response if sound else None)
        elif not data:
            self._asking.heard(self, None)

    def close(self) -> None:
        """Hang up."""
        if self._sock:
            self._asking.forwarder.loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None


def _socket(server: Server, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
