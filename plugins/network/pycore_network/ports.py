"""Published ports as values: which of the host's, where they lead, and who may reach them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ANYWHERE = {4: "0.0.0.0", 6: "::"}
"""Version to the word for all addresses of the host that are of it."""

PROTOCOLS = ("tcp", "udp", "sctp")
"""Those that have ports."""

HOST, LAN, ALL = "host", "lan", "all"
"""Who may reach a port: this host alone, private networks as well, everybody."""

Place = tuple[str | int, ...]
"""Where in the spec an entry stands: its keys and indexes from the top."""


def number_of(text: str) -> int | None:
    """A port as people write it; None for what is no number. Raises ValueError for a number that no port has."""
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text[:6])
    if not 1 <= number <= 65535:
        raise ValueError(f"{text[:20]} is no port: ports go from 1 to 65535")
    return number


@dataclass(frozen=True)
class Ports:
    """A row of ``count`` ports of the host, and the container's ports that they lead to."""

    protocol: str
    host_ip: str
    """Empty for all addresses of the host; ``0.0.0.0`` and ``::`` for those of one family."""
    host_port: int
    port: int
    count: int = 1
    expose: str = ALL
    allow_from: tuple[str, ...] = ()
    """Networks; empty for everybody whom ``expose`` means."""
    proxy: bool = False
    """Whether a socket of the supervisor's serves them."""

    def __str__(self) -> str:
        """As it is shown: ``127.0.0.1:8080->80/tcp``, ``*:8080->80/tcp (lan)``."""
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "*"
        limits = [*([self.expose] if self.expose != ALL else []), *self.allow_from, *(["proxy"] if self.proxy else [])]
        shown = f"{host}:{_row(self.host_port, self.count)}->{_row(self.port, self.count)}/{self.protocol}"
        return f"{shown} ({', '.join(limits)})" if limits else shown

    def __iter__(self) -> Iterator[int]:
        """The host's ports, one by one."""
        return iter(range(self.host_port, self.host_port + self.count))

    @property
    def versions(self) -> tuple[int, ...]:
        """The families of the host's addresses: 4, 6."""
        return (version_of(self.host_ip),) if self.host_ip else (4, 6)

    @property
    def one_address(self) -> str:
        """The one address of the host that it is published on; empty where that is all of them, or all of a family."""
        return "" if self.host_ip in ANYWHERE.values() else self.host_ip

    @property
    def only_here(self) -> bool:
        """Whether this host alone may reach them: an address of the loopback is nobody else's, whatever they send."""
        return self.expose == HOST or self.host_ip == "::1" or self.host_ip.startswith("127.")


def overlap(one: str, other: str) -> bool:
    """Whether a port on one address of the host, or on all, is also a port on the other."""
    if not one or not other or one == other:
        return True
    anywhere = ANYWHERE[version_of(one)]
    return version_of(one) == version_of(other) and anywhere in (one, other)


def twice(entries: Iterable[tuple[Place, Ports]]) -> Iterator[tuple[Place, int, Place]]:
    """Entries that ask for a port that one before them has: (its place, the port, the place before)."""
    taken: dict[tuple[str, int], list[tuple[str, Place]]] = {}
    for place, ports in entries:
        for port in ports:
            others = taken.setdefault((ports.protocol, port), [])
            before = next((where for address, where in others if overlap(address, ports.host_ip)), None)
            if before is not None:
                yield place, port, before
                break
            others.append((ports.host_ip, place))


def version_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def _row(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
