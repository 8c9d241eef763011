"""Queries by UDP: taken from the socket as fast as they come, and answered when it is their turn."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from pycore_network.loop import IN, Loop
from pycore_network.resolver.turns import Turns

Reply = Callable[[bytes | None], None]
"""Called once for each query, with the answer; None where there is to be none."""
Handle = Callable[[bytes, str, bool, Reply], None]
"""What is done with a query: its bytes, the address that it came from, whether by TCP, where the answer goes."""

_LONGEST = 4096
"""Bytes that are taken of one; no sound query has as many."""
_AT_ONCE = 256
"""Taken from the socket before anything is answered."""

_Peer = Any
"""Where something came from, as sockets have it."""


class Datagrams:
    """A socket, which stays its owner's. For the loop's thread alone."""

    def __init__(self, loop: Loop, turns: Turns, sock: socket.socket, handle: Handle) -> None:
        self._sock, self._turns, self._handle = sock, turns, handle
        self._open: set[tuple[_Peer, bytes]] = set()
        """What was asked and is not answered yet: who asks again is not asked for twice."""
        loop.watch(sock.fileno(), IN, self._readable)

    def _readable(self, _: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, peer = self._sock.recvfrom(_LONGEST)
            except OSError:  # there is no more; or what the kernel tells of an earlier answer
                return
            self._turns.put(peer[0], partial(self._answer, data, peer))

    def _answer(self, data: bytes, peer: _Peer) -> None:
        key = (peer, data[:2])
        if key in self._open:
            return
        self._open.add(key)

        def reply(answer: bytes | None) -> None:
            self._open.discard(key)
            if answer is not None:
                with suppress(OSError):  # no room: then it is as lost as it may get on any way
                    self._sock.sendto(answer, peer)

        self._handle(data, peer[0], False, reply)
