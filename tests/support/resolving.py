"""A resolver on sockets of the loopback, askers with addresses of 127.0.0.0/8, and servers that it asks in turn."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.rrset
from pycore.linux.kernel import Kernel
from pycore_network.egress.policy import Egress
from pycore_network.known import Known, path_of
from pycore_network.resolver.policy import Policy
from pycore_network.resolver.running import Running
from pycore_network.resolver.tables import Tables
from pycore_network.resolver.upstream import Server

SECONDS = 20
"""How long a test waits for what must come."""

Answer = Callable[[bytes, bool], bytes | None]
"""What a server says to a query: its bytes, whether by TCP."""


class Upstream:
    """A server of names, by UDP and TCP at one port."""

    def __init__(self, answer: Answer, address: tuple[str, int] | None = None) -> None:
        """At any free port of the loopback, or at this address."""
        self.answer = answer
        self.asked: list[tuple[bytes, int, bool]] = []
        """Each query, the port that it came from, whether by TCP."""
        self.udp, self.tcp = _at(*address) if address else both()
        self.address: Server = self.udp.getsockname()
        self.udp.setblocking(True)
        self.tcp.setblocking(True)
        self._threads = [threading.Thread(target=each) for each in (self._datagrams, self._streams)]
        for thread in self._threads:
            thread.start()

    def _datagrams(self) -> None:
        while True:
            query, peer = self.udp.recvfrom(65535)
            if query == b"end":
                return
            self.asked.append((query, peer[1], False))
            response = self.answer(query, False)
            if response is not None:
                self.udp.sendto(response, peer)

    def _streams(self) -> None:
        while True:
            sock, peer = self.tcp.accept()
            with sock, sock.makefile("rb") as file:
                size = file.read(2)
                if size == b"":
                    return
                query = file.read(int.from_bytes(size, "big"))
                self.asked.append((query, peer[1], True))
                response = self.answer(query, True)
                if response is not None:
                    sock.sendall(len(response).to_bytes(2, "big") + response)

    def close(self) -> None:
        """End it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", self.address)
        socket.create_connection(self.address).close()
        for thread in self._threads:
            thread.join(SECONDS)
        self.udp.close()
        self.tcp.close()


def says(*addresses: str, ttl: int = 300) -> Answer:
    """A server that knows these addresses of every name."""

    def answer(query: bytes, stream: bool) -> bytes:
        message = dns.message.from_wire(query)
        response = dns.message.make_response(message, recursion_available=True)
        asked = message.question[0]
        kind = "AAAA" if asked.rdtype == dns.rdatatype.AAAA else "A"
        found = [each for each in addresses if (":" in each) == (kind == "AAAA")]
        if found:
            response.answer.append(dns.rrset.from_text_list(asked.name, ttl, "IN", kind, found))
        room = 65535 if stream else max(512, message.payload)
        return response.to_wire(max_size=room, prefer_truncation=True, want_shuffle=False)

    return answer


def both() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket at one free port of the loopback."""
    while True:
        udp = Kernel().listen(socket.SOCK_DGRAM, "127.0.0.1", 0)
        try:
            return udp, Kernel().listen(socket.SOCK_STREAM, *udp.getsockname())
        except OSError:  # somebody else has it for TCP
            udp.close()


def _at(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    kernel = Kernel()
    return kernel.listen(socket.SOCK_DGRAM, address, port), kernel.listen(socket.SOCK_STREAM, address, port)


class World:
    """A run dir, and a resolver that answers from it."""

    def __init__(self, run_dir: Path, policy: Policy | None = None) -> None:
        self.run_dir, self.policy = run_dir, policy or Egress(Kernel(), str(run_dir), "nobody")
        self.servers: Sequence[Server] = ()
        self._tables = Tables(run_dir)
        udp, tcp = both()
        self.port: int = udp.getsockname()[1]
        self.running = Running(udp, tcp, self._tables, self.policy, lambda _: self.servers)

    def network(self, name: str, *subnets: str, internal: bool = False) -> None:
        """Make a network, or change it."""
        directory = self.run_dir / "networks" / name
        (directory / "names").mkdir(parents=True, exist_ok=True)
        record = {"subnets": list(subnets), "internal": internal}
        (directory / "network.json").write_text(repr(record).replace("'", '"').replace("F", "f").replace("T", "t"))
        self.running.changed()

    def join(self, network: str, identity: str, known: Known) -> None:
        """Have a container in a network."""
        Kernel().replace(path_of(str(self.run_dir / "networks" / network), identity), known.to_text())
        self.running.changed()

    def leave(self, network: str, identity: str) -> None:
        """Take it out again."""
        Kernel().unlink(path_of(str(self.run_dir / "networks" / network), identity))
        self.running.changed()

    def ask(
        self, source: str, name: str, kind: str = "A", *, tcp: bool = False, payload: int | None = None
    ) -> dns.message.Message:
        """What the resolver answers to who has that address."""
        query = dns.message.make_query(name, kind, payload=payload, use_edns=0 if payload else False)
        ask = dns.query.tcp if tcp else dns.query.udp
        return ask(query, "127.0.0.1", timeout=SECONDS, port=self.port, source=source)

    def addresses(self, source: str, name: str, kind: str = "A") -> list[str]:
        """The addresses of its answer, in their order."""
        return [each.to_text() for rrset in self.ask(source, name, kind).answer for each in rrset]

    def close(self) -> None:
        """End it."""
        self.running.end()
