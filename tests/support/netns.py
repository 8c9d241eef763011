"""Network namespaces for tests, each held by a process that sleeps; sockets in them are made from the test itself."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from pycore.linux import libc

_OWN = "/proc/thread-self/ns/net"


@contextmanager
def entered(pid: int) -> Iterator[None]:
    """The test's own thread is in the network namespace of a process for a while; sockets made there stay there."""
    own = os.open(_OWN, os.O_RDONLY)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    libc.setns(theirs, libc.CLONE_NEWNET)
    try:
        yield
    finally:
        libc.setns(own, libc.CLONE_NEWNET)
        os.close(own)
        os.close(theirs)


class Namespace:
    """A network namespace of its own, with ``lo`` up where asked for."""

    def __init__(self, *, loopback: bool = False) -> None:
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.pid = self._process.pid
        own = os.readlink(_OWN)
        while os.readlink(f"/proc/{self.pid}/ns/net") == own:
            time.sleep(0.001)
        if loopback:
            self.run("ip link set lo up")

    def close(self) -> None:
        """End it; the kernel takes its devices down."""
        self._process.kill()
        self._process.wait()

    def entered(self) -> AbstractContextManager[None]:
        """The test's own thread is in it for a while."""
        return entered(self.pid)

    def run(self, command: str) -> str:
        """Run a command in it; its output."""
        words = ["nsenter", "-t", str(self.pid), "--net", *command.split()]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def bring_up(self, device: str) -> None:
        """Have a device up, without a look whether another has its own address: for so long, the kernel asks nobody for
        neighbours by that (accept_dad, ip-sysctl.rst).
        """
        if os.path.exists("/proc/sys/net/ipv6"):
            self.run(f"sysctl -q -w net.ipv6.conf.{device}.accept_dad=0")
        self.run(f"ip link set {device} up")

    def wait_until_reached(self, *addresses: str) -> None:
        """Wait until a packet goes to each address and another comes back: the kernel makes a device ready, and its
        addresses known, in its own time, and a question for a neighbour that is lost is asked again a second later.
        """
        for address in addresses:
            for _ in range(40):
                with self.socket(address=address) as client, suppress(TimeoutError, OSError):
                    client.settimeout(0.5)
                    if client.connect_ex((address, 1)) == errno.ECONNREFUSED:
                        break
            else:
                raise AssertionError(f"{address} is not reached")

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM, address: str = "") -> socket.socket:
        """A socket that belongs to it, wherever it is used, of the family of an address; gives up after seconds."""
        with self.entered():
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        if ":" in address:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.settimeout(3)
        return made

    def listen(self, port: int, address: str = "0.0.0.0") -> socket.socket:
        """A TCP socket that waits there for connections."""
        server = self.socket(address=address)
        server.bind((address, port))
        server.listen()
        return server

    def wait_until_gone(self, device: str) -> None:
        """Wait until the kernel has taken a device down, which happens later than the end of what held it."""
        with self.entered():
            for _ in range(1000):
                if device not in (name for _, name in socket.if_nameindex()):
                    return
                time.sleep(0.005)
        raise AssertionError(f"{device} is still there")


def peer_seen(client: socket.socket, server: socket.socket, target: tuple[str, int]) -> str:
    """Connect, exchange a word each way, and tell the address that the server saw the client at."""
    with client:
        client.connect(target)
        server.settimeout(1)
        accepted, (address, *_) = server.accept()
        with accepted:
            client.sendall(b"ask")
            assert accepted.recv(10) == b"ask"
            accepted.sendall(b"answer")
            assert client.recv(10) == b"answer"
    return str(address)
