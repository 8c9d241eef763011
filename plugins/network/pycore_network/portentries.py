"""Published ports as the spec writes them: ``"127.0.0.1:8080:80/tcp"``, or a table that says more."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_network
from typing import Annotated, Literal

import pydantic
from pycore.spec import Change, Fields, Many, Text, setting

from pycore_network.ports import PROTOCOLS, Ports, number_of

MAX_RANGE = 1024
"""Ports in one entry."""

_FORM = 'must look like "8080:80", "127.0.0.1:8080:80", "[::1]:8080:80", "8080:80/udp" or "8000-8010:8000-8010"'


def _is_port(value: int | str) -> int | str:
    _numbers(str(value))
    return value


def _address(text: str) -> str:
    for kind in (IPv4Address, IPv6Address):
        try:
            address = kind(text)
        except AddressValueError:
            continue
        if address.is_multicast or (isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped)):
            break
        return str(address)
    raise ValueError(f"{text!r} is no address of the host")


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError('must be an address or a network such as "10.0.0.0/8", with no host bits set') from None


_Row = Annotated[int | Text, pydantic.AfterValidator(_is_port)]


class PortTable(Fields):
    """A published port of which more is said than a string can say."""

    port: _Row = setting(doc="The container's port, or a range of them.", change=Change.LIVE, example=80)
    host_port: _Row | None = setting(
        None, doc="The host's port, or as many of them; the same without.", change=Change.LIVE, example=8080
    )
    host_ip: Annotated[Text, pydantic.AfterValidator(_address)] | None = setting(
        None, doc="The address of the host; all of them without.", change=Change.LIVE, example="127.0.0.1"
    )
    protocol: Literal["tcp", "udp", "sctp"] = setting("tcp", doc="The protocol.", change=Change.LIVE)
    expose: Literal["host", "lan", "all"] = setting(
        "all",
        doc="Who may reach it: `host`, this host alone; `lan`, also private and link-local addresses, which those of "
        "other containers are; `all`, everybody.",
        change=Change.LIVE,
    )
    allow_from: Many[Annotated[Text, pydantic.AfterValidator(_network)]] = setting(
        (),
        doc="Networks from which it may be reached; besides them this host itself. To all others it is as if nothing "
        "were published.",
        change=Change.LIVE,
        example=["10.0.0.0/8"],
    )
    proxy: bool = setting(
        False,
        doc="Serve it by a socket of the supervisor, so that the host's own firewall counts as for any server. The "
        "container then sees the host's address instead of the client's.",
        change=Change.LIVE,
    )

    @pydantic.model_validator(mode="after")
    def _fits(self) -> PortTable:
        of_table(self)
        if self.proxy and self.protocol == "sctp":
            raise ValueError("the proxy serves tcp and udp, not sctp")
        return self


def _text(text: str) -> str:
    parse(text)
    return text


def _kind(value: object) -> str:
    return "table" if isinstance(value, (dict, PortTable)) else "text"


Entry = Annotated[
    Annotated[Annotated[Text, pydantic.AfterValidator(_text)], pydantic.Tag("text")]
    | Annotated[PortTable, pydantic.Tag("table")],
    pydantic.Discriminator(_kind),
]
"""One entry of ``ports``."""


def read(entry: str | PortTable) -> Ports:
    """An entry as a value."""
    return parse(entry) if isinstance(entry, str) else of_table(entry)


def of_table(table: PortTable) -> Ports:
    """Raises ValueError with words for its author, where the numbers of ports differ."""
    inside = _numbers(str(table.port))
    host = _numbers(str(table.host_port)) if table.host_port is not None else inside
    return replace(
        _ports(host, inside, table.host_ip or "", table.protocol),
        expose=table.expose, allow_from=table.allow_from, proxy=table.proxy,
    )  # fmt: skip


def parse(text: str) -> Ports:
    """Read ``[HOST_IP:]HOST_PORT[-LAST]:PORT[-LAST][/PROTOCOL]``. Raises ValueError with words for its author."""
    body, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise ValueError(f'the protocol must be "tcp", "udp" or "sctp", not {protocol!r}')
    address, body = _split(body)
    words = body.split(":")
    if len(words) == 1:
        raise ValueError(f'{_FORM}; for the same port on the host write "{body}:{body}"')
    if len(words) != 2:
        raise ValueError(_FORM)
    return _ports(_numbers(words[0]), _numbers(words[1]), address, protocol or "tcp")


def _split(body: str) -> tuple[str, str]:
    """The address, empty where there is none, and the rest."""
    if body.startswith("["):
        address, closed, rest = body[1:].partition("]:")
        if not closed:
            raise ValueError(_FORM)
        return _address(address), rest
    if body.count(":") > 2:
        raise ValueError(f"{_FORM}; an IPv6 address stands in brackets")
    if body.count(":") == 2:
        address, _, rest = body.partition(":")
        return _address(address), rest
    return "", body


def _ports(host: range, inside: range, address: str, protocol: str) -> Ports:
    if len(host) != len(inside):
        raise ValueError(f"{len(host)} ports of the host cannot lead to {len(inside)} of the container")
    return Ports(protocol, address, host[0], inside[0], len(host))


def _numbers(text: str) -> range:
    first, dash, last = text.partition("-")
    start = _number(first)
    end = _number(last) if dash else start
    if end < start:
        raise ValueError(f"the range {text} ends before it begins")
    if end - start >= MAX_RANGE:
        raise ValueError(f"the range {text} has more than {MAX_RANGE} ports")
    return range(start, end + 1)


def _number(text: str) -> int:
    number = number_of(text)
    if number is None:
        raise ValueError(_FORM)
    return number
