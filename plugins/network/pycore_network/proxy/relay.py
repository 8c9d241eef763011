"""The ports that are served, each with a socket, and to which port of a container it leads."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

from pycore_network.elements import sources_of
from pycore_network.loop import IN, Loop
from pycore_network.proxy.datagrams import Datagrams, tell_addresses
from pycore_network.proxy.streams import RESET, Stream

MOST = 4096
"""Connections at once over all ports, with two descriptors each; more wait in the kernel until one has ended."""
_WAITING = 1024
_AT_ONCE = 64
"""Connections that are taken before others have their turn."""
_PAUSE = 1.0
"""Seconds until it is tried again to take a connection, where the host had no room for one."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Key = tuple[str, str, int]
"""Protocol, address of the host (empty for all there are), port."""


@dataclass(frozen=True)
class Target:
    """Where a port leads to, and who may use it."""

    address: str
    port: int
    expose: str = "all"
    """``host``: this host alone; ``lan``: private and link-local addresses; ``all``."""
    allow_from: tuple[str, ...] = ()
    """Networks; empty for all that ``expose`` lets in."""

    def admits(self, client: str, host: str) -> bool:
        """Whether a client's address may use it, which came to one of the host's."""
        source, own = _plain(client), _plain(host)
        if source.is_loopback or source == own:
            return True
        allowed = sources_of(self.expose, self.allow_from, source.version)
        return allowed is None or any(source in ip_network(each) for each in allowed)


class Relay:
    """All ports that are served. Its thread is there only while there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.work: _Work | None = None
        self._ports: dict[Key, _Port] = {}

    def serve(self, wanted: Mapping[Key, Target]) -> dict[Key, OSError]:
        """Serve these ports and no others from now on; those that could not be had, and why.

        A port whose target has changed goes on listening; connections to where it led before are broken.
        """
        failed: dict[Key, OSError] = {}
        with self._lock:
            withdrawn = self._ports.keys() - wanted.keys()
            for key in withdrawn:
                self._ports.pop(key).close()
            if self.work and withdrawn:
                self.work.loop.catch_up()  # whoever wants one of them now finds it free
            for key, target in wanted.items():
                try:
                    self._lead(key, target)
                except OSError as error:
                    failed[key] = error
            if self.work and not self._ports:
                self.work.loop.end()
                self.work = None
        return failed

    def close(self) -> None:
        """Serve nothing any more."""
        self.serve({})

    def _lead(self, key: Key, target: Target) -> None:
        port = self._ports.get(key)
        if port is None:
            sock = listen(key)
            self.work = self.work or _Work(Loop("pycore-proxy"))
            self._ports[key] = (_Streams if key[0] == "tcp" else _Datagrams)(self.work, sock, target)
        elif port.target != target:
            port.lead(target)


class _Work:
    """What all ports share: the loop, and what its thread alone knows."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.timed: set[_Port] = set()
        """Ports that wait for a time."""
        self.connections = 0
        loop.deadline, loop.expire = self.deadline, self.expire

    def deadline(self) -> float | None:
        """The first time that any of them waits for."""
        return min((when for port in self.timed if (when := port.deadline()) is not None), default=None)

    def expire(self) -> None:
        """Have those do something whose time has come."""
        for port in list(self.timed):
            port.expire()
            if port.deadline() is None:
                self.timed.discard(port)


class _Port(Protocol):
    """A port that is served."""

    target: Target

    def lead(self, target: Target) -> None:
        """Lead elsewhere, or let others in, from now on."""
        ...

    def close(self) -> None:
        """Serve it no more, and break what goes by it."""
        ...

    def deadline(self) -> float | None:
        """When it wants to be called."""
        ...

    def expire(self) -> None:
        """It may be so late."""
        ...


class _Streams:
    """A TCP port and the connections by it. The loop's thread does all but what is called from :class:`Relay`."""

    def __init__(self, work: _Work, sock: socket.socket, target: Target) -> None:
        self.work, self._sock, self.target = work, sock, target
        self._streams: dict[Stream, Target] = {}
        self._again: float | None = None
        work.loop.post(self._open)

    def lead(self, target: Target) -> None:
        """Lead elsewhere, or let others in, from now on."""
        self.target = target
        self.work.loop.post(self._break_others)

    def close(self) -> None:
        """Serve it no more, and break what goes by it."""
        self.work.loop.post(self._close)

    def deadline(self) -> float | None:
        """When to try again to take connections, where there was no room for one."""
        return self._again

    def expire(self) -> None:
        """Try again."""
        if self._again is not None and self._again <= time.monotonic():
            self._again = None
            self._open()

    def _open(self) -> None:
        self.work.loop.watch(self._sock.fileno(), IN, self._arrived)

    def _close(self) -> None:
        self.work.timed.discard(self)
        self.work.loop.forget(self._sock.fileno())
        self._sock.close()
        self._break()

    def _break(self) -> None:
        for stream in list(self._streams):
            stream.close(broken=True)

    def _break_others(self) -> None:
        """Break those that lead elsewhere; one may have come after the port was told where it leads by now."""
        for stream, target in list(self._streams.items()):
            if target != self.target:
                stream.close(broken=True)

    def _arrived(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                if self.work.connections >= MOST:
                    raise OSError(errno.EMFILE, "too many connections")
                client, address = self._sock.accept()
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._hold()
                return
            self._take(client, address[0])

    def _take(self, client: socket.socket, source: str) -> None:
        target = self.target
        try:
            if target.admits(source, client.getsockname()[0]):
                stream = Stream(self.work.loop, client, (target.address, target.port), self._gone)
                self._streams[stream] = target
                self.work.connections += 1
                return
        except OSError:  # the client has gone already, or the container cannot be reached
            pass
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()

    def _gone(self, stream: Stream) -> None:
        del self._streams[stream]
        self.work.connections -= 1

    def _hold(self) -> None:
        """Take no connection for a while: those that wait are the kernel's."""
        self._again = time.monotonic() + _PAUSE
        self.work.timed.add(self)
        self.work.loop.forget(self._sock.fileno())


class _Datagrams:
    """A UDP port. The loop's thread does all but what is called from :class:`Relay`."""

    def __init__(self, work: _Work, sock: socket.socket, target: Target) -> None:
        self.work, self._sock, self.target = work, sock, target
        self._led: Target = target
        self._clients = self._led_to(target)
        work.loop.post(self._open)

    def lead(self, target: Target) -> None:
        """Lead elsewhere, or let others in, from now on."""
        self.target = target
        self.work.loop.post(self._again)

    def close(self) -> None:
        """Serve it no more."""
        self.work.loop.post(self._close)

    def deadline(self) -> float | None:
        """When a client has been silent for too long."""
        return self._clients.deadline()

    def expire(self) -> None:
        """Let go of those that have been."""
        self._clients.expire()

    def _led_to(self, target: Target) -> Datagrams:
        return Datagrams(self.work.loop, self._sock, (target.address, target.port))

    def _open(self) -> None:
        self.work.loop.watch(self._sock.fileno(), IN, self._arrived)

    def _arrived(self, events: int) -> None:
        self._again()
        self.work.timed.add(self)
        self._clients.arrived(self._led.admits)

    def _again(self) -> None:
        """Lead where it is to lead by now."""
        target = self.target
        if target != self._led:
            self._clients.close()
            self._led, self._clients = target, self._led_to(target)

    def _close(self) -> None:
        self.work.timed.discard(self)
        self.work.loop.forget(self._sock.fileno())
        self._clients.close()
        self._sock.close()


def listen(key: Key) -> socket.socket:
    """A socket of this host for a port. Raises OSError where that cannot be had."""
    protocol, address, port = key
    version = ip_address(address).version if address else 6 if socket.has_ipv6 and _ipv6_is_there() else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(address)))
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            tell_addresses(sock)
        sock.bind((address or ("::" if version == 6 else "0.0.0.0"), port))
        if kind == socket.SOCK_STREAM:
            sock.listen(_WAITING)
    except OSError:
        sock.close()
        raise
    return sock


def _ipv6_is_there() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:  # the kernel was started with ipv6.disable=1
        return False
    return True


def _plain(text: str) -> IPv4Address | IPv6Address:
    """An address; one of IPv4 that IPv6 sockets write in their own way is IPv4's."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
