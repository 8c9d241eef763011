"""UDP: what comes from one address of a client goes to the container from one socket, and answers go back by it."""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pycore_network.loop import IN, Loop

MOST = 1024
"""Clients of one port at once; the one that was silent for longest makes room for another."""
IDLE = 120.0
"""Seconds that a client may be silent and still get an answer: as the kernel's own tables have it for a flow of both
directions (nf_conntrack_udp_timeout_stream)."""
_AT_ONCE = 64
"""Datagrams that are taken before others have their turn."""
_LARGEST = 1 << 16
_IP_PKTINFO = 8
"""Of linux/in.h; Python has no name for it before 3.14."""
_CONTROL = ((socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO))

Message = tuple[int, int, bytes]


def tell_addresses(sock: socket.socket) -> None:
    """Have a socket say which address of the host each datagram was for, so that the answer comes from that."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


@dataclass(eq=False)
class _Client:
    """Who sends to the port."""

    address: Any
    sock: socket.socket
    """Connected to the container."""
    where: list[Message]
    """The host's address that it sends to, as sendmsg(2) takes it to be the source of answers."""
    seen: float = 0.0


class Datagrams:
    """A port, its clients, and the container's port. It belongs to the thread of the loop."""

    def __init__(self, loop: Loop, sock: socket.socket, target: tuple[str, int]) -> None:
        self._loop, self._sock, self._target = loop, sock, target
        self._clients: OrderedDict[Any, _Client] = OrderedDict()

    def close(self) -> None:
        """Let go of all clients; the socket is the caller's."""
        while self._clients:
            self._drop(next(iter(self._clients.values())))

    def deadline(self) -> float | None:
        """When the first of the clients has been silent for too long."""
        return next((client.seen + IDLE for client in self._clients.values()), None)

    def expire(self) -> None:
        """Let go of those that have been."""
        now = time.monotonic()
        while (first := next(iter(self._clients.values()), None)) and first.seen + IDLE <= now:
            self._drop(first)

    def arrived(self, allowed: Any) -> None:
        """Pass on what has come. ``allowed`` says whether the address of a client and that of the host may meet."""
        for _ in range(_AT_ONCE):
            try:
                data, control, _, address = self._sock.recvmsg(_LARGEST, 128)
            except OSError:  # nothing more; or an answer of ours could not be delivered
                return
            where = [each for each in control if each[:2] in _CONTROL]
            client = self._clients.get(address)
            if client is None:
                if not allowed(address[0], _address_of(where)):
                    continue
                client = self._admit(address, where)
            if client:
                self._seen(client)
                with suppress(OSError):  # nobody listens there, or it cannot take more: datagrams may be lost
                    client.sock.send(data)

    def _admit(self, address: Any, where: list[Message]) -> _Client | None:
        while len(self._clients) >= MOST:
            self._drop(next(iter(self._clients.values())))
        family = socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            return None
        try:
            sock.connect(self._target)
        except OSError:
            sock.close()
            return None
        client = self._clients[address] = _Client(address, sock, [_as_source(each) for each in where])
        self._loop.watch(sock.fileno(), IN, lambda _: self._answer(client))
        return client

    def _answer(self, client: _Client) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = client.sock.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # nobody listens in the container, at this moment
                return
            self._seen(client)
            with suppress(OSError):
                self._sock.sendmsg([data], client.where, 0, client.address)

    def _seen(self, client: _Client) -> None:
        client.seen = time.monotonic()
        self._clients.move_to_end(client.address)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.address]
        self._loop.forget(client.sock.fileno())
        client.sock.close()


def _address_of(where: list[Message]) -> str:
    """The host's address that a datagram was for (ip(7), struct in_pktinfo; ipv6(7), struct in6_pktinfo)."""
    for level, _, data in where:
        if level == socket.IPPROTO_IPV6:
            return socket.inet_ntop(socket.AF_INET6, data[:16])
        return socket.inet_ntop(socket.AF_INET, data[8:12])
    return ""


def _as_source(message: Message) -> Message:
    """The same for sending: from that address, by whichever device the routes say."""
    level, kind, data = message
    if level == socket.IPPROTO_IPV6:
        index = data[16:20] if data[:2] == b"\xfe\x80" else bytes(4)
        return level, kind, data[:16] + index
    return level, kind, bytes(4) + data[4:8] + bytes(4)
