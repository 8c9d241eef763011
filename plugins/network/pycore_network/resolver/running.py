"""The resolver at work: its sockets, and the one thread that serves them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pycore_network.loop import Loop
from pycore_network.resolver.datagrams import Datagrams, Reply
from pycore_network.resolver.policy import Policy
from pycore_network.resolver.streams import Streams
from pycore_network.resolver.tables import Tables
from pycore_network.resolver.timers import Timers
from pycore_network.resolver.turns import Turns
from pycore_network.resolver.upstream import Server

if TYPE_CHECKING:
    from pycore_network.resolver.server import Resolver


class Running:
    """Begins at once. The sockets are its own from then on."""

    def __init__(
        self,
        udp: socket.socket,
        tcp: socket.socket,
        tables: Tables,
        policy: Policy,
        servers: Callable[[str], Sequence[Server]],
    ) -> None:
        """``servers`` says whom to ask for a container, given by its id."""
        self._udp, self._tcp, self._tables = udp, tcp, tables
        self._policy, self._servers = policy, servers
        self._timers, self._turns = Timers(), Turns()
        self._resolver: Resolver | None = None
        self._ending: list[Callable[[], None]] = []
        self._loop = Loop("pycore-resolver")
        self._loop.post(self._begin)

    def changed(self) -> None:
        """Look at the networks anew when somebody asks. Any thread may say so."""
        self._tables.changed()

    def _begin(self) -> None:
        self._loop.deadline, self._loop.expire = self._deadline, self._expire
        Datagrams(self._loop, self._turns, self._udp, self._handle)
        self._ending.append(Streams(self._loop, self._timers, self._turns, self._tcp, self._handle).close)

    def _deadline(self) -> float | None:
        return time.monotonic() if self._turns.waiting else self._timers.next()

    def _expire(self) -> None:
        self._timers.run_due()
        self._turns.serve()

    def _handle(self, data: bytes, source: str, stream: bool, reply: Reply) -> None:
        if self._resolver is None:
            self._resolver = self._made()
        self._resolver.handle(data, source, stream, reply)

    def _made(self) -> Resolver:
        """What answers: from the first query on, since what it imports takes its time."""
        from pycore_network.resolver.forward import Forwarder
        from pycore_network.resolver.server import Resolver

        forwarder = Forwarder(self._loop, self._timers)
        self._ending.append(forwarder.close)
        return Resolver(self._tables, forwarder, self._policy, self._servers)

    def end(self) -> None:
        """Answer no more, and wait for the thread to end; from another thread."""
        self._loop.post(self._close)
        self._loop.end()

    def _close(self) -> None:
        for act in self._ending:
            act()
        for sock in (self._udp, self._tcp):
            self._loop.forget(sock.fileno())
            sock.close()
