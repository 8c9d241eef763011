"""How a health check names what it asks: addresses and pages, all of them in the container's own network."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_LOOPBACK = "127.0.0.1"
_PATH = re.compile(r"/[!-~]*")
"""What can stand in a request without quoting; no fragment, which is not sent."""


@dataclass(frozen=True)
class Address:
    """Where a connection goes to."""

    host: str
    """An IPv4 or IPv6 address."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Url:
    """What is asked for over HTTP."""

    address: Address
    path: str

    def __str__(self) -> str:
        return f"http://{self.address}{self.path}"


def parse_address(text: str) -> Address:
    """The address of ``":5432"``, ``"127.0.0.1:5432"``, ``"localhost:5432"`` or ``"[::1]:5432"``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError('must be an address such as ":5432" or "127.0.0.1:5432"')
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise ValueError(f"{port!r} is not a port: 1 to 65535")
    return Address(_host(host), int(port))


def _host(host: str) -> str:
    if host in ("", "localhost"):
        return _LOOPBACK
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f"{host!r} is not an address; names are not looked up") from None
    if bracketed != (address.version == 6) or "%" in host:
        raise ValueError(f"{host!r} is not an address such as 127.0.0.1 or [::1]")
    return str(address)


def parse_url(text: str) -> Url:
    """The page of ``"http://127.0.0.1:8080/healthz"`` or ``":8080/healthz"``. Raises ValueError."""
    scheme, separator, rest = ("http", "://", text) if text.startswith(":") else text.partition("://")
    if scheme != "http" or not separator:
        raise ValueError('must be a page such as ":8080/healthz" or "http://127.0.0.1:8080/healthz"')
    place, slash, path = rest.partition("/")
    path = slash + path or "/"
    if not _PATH.fullmatch(path) or "#" in path:
        raise ValueError("the path has characters that must be written as %XX")
    if not place:
        raise ValueError("has no address")
    has_port = ":" in place.rpartition("]")[2]
    return Url(parse_address(place if has_port else f"{place}:80"), path)
