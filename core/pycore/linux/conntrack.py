"""Lists connections that the kernel tracks, and has it forget some (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pycore.linux import nfnetlink
from pycore.linux.nlmessages import ACK, DONE, DUMP, ERROR, NESTED, REQUEST, attribute, attributes, messages

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
_GET, _DELETE = 0x101, 0x102
"""IPCTNL_MSG_CT_GET and _DELETE of NFNL_SUBSYS_CTNETLINK."""
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
"""CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER."""
_ADDRESSES, _PROTOCOL = 1, 2
"""CTA_TUPLE_IP, CTA_TUPLE_PROTO."""
_SOURCE = {socket.AF_INET: 1, socket.AF_INET6: 3}
_DESTINATION = {socket.AF_INET: 2, socket.AF_INET6: 4}
_NUMBER, _DESTINATION_PORT = 1, 3
_FILTER_ORIGINAL = 1
_BY_SOURCE, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5
"""Bits of CTA_FILTER_ORIG_FLAGS (ctnetlink_filter_flags in nf_conntrack_netlink.c)."""
_LARGE = 1 << 16
_NO_TRACKING = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
"""What a kernel says that tracks no connections, or lets nobody ask for them."""


@dataclass(frozen=True)
class Flow:
    """A connection as the kernel tracks it."""

    family: socket.AddressFamily
    protocol: int
    """As IP numbers them."""
    source: str
    """Where its first packet came from."""
    destination: str
    """Where its first packet was sent to."""
    port: int
    answers: str
    """Who answers it: another than its destination, where that is translated."""
    name: bytes
    """The attributes that tell it from others."""


def flows(protocol: str, ports: tuple[int, int], version: int) -> list[Flow]:
    """Connections whose first packet was sent to one of these ports, given by the first and the last.

    ``version`` of IP is 4 or 6. Raises OSError.
    """
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    port = attribute(_DESTINATION_PORT, ports[0].to_bytes(2, "big"))
    numbers = attribute(_NUMBER, bytes([PROTOCOLS[protocol]])) + port
    # The kernel picks by the port where it is one; a row of them is picked from here.
    bits = _BY_NUMBER | (_BY_DESTINATION_PORT if ports[0] == ports[1] else 0)
    found = _listed(family, attribute(_PROTOCOL | NESTED, numbers), bits)
    return [flow for flow in found if ports[0] <= flow.port <= ports[1]]


def flows_from(source: str) -> list[Flow]:
    """Connections whose first packet came from an address. Raises OSError."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    address = attribute(_SOURCE[family], socket.inet_pton(family, source))
    return _listed(family, attribute(_ADDRESSES | NESTED, address), _BY_SOURCE)


def forget(unwanted: Collection[Flow]) -> None:
    """Have the kernel forget connections; one that has ended by now is fine. Raises OSError."""
    if not unwanted:
        return
    with nfnetlink.open_socket() as sock:
        for flow in unwanted:
            sock.send(nfnetlink.request(_DELETE, REQUEST | ACK, flow.family, flow.name))
            _, answer = next(messages(sock.recv(_LARGE)))
            (number,) = struct.unpack_from("=i", answer)
            if -number not in (0, errno.ENOENT):
                raise OSError(-number, f"the connection to port {flow.port} cannot be forgotten")


def _count() -> int:
    """How many connections are tracked in this network namespace."""
    try:
        with open(_COUNT, "rb") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _listed(family: socket.AddressFamily, original: bytes, bits: int) -> list[Flow]:
    """Those whose first packet is like what stands in ``original``, as far as ``bits`` say to look at it. Where the
    kernel tracks no connection at all, it is not asked: to look through an empty table takes it milliseconds.
    """
    if not _count():
        return []
    wanted = attribute(_ORIGINAL | NESTED, original)
    picked = attribute(_FILTER | NESTED, attribute(_FILTER_ORIGINAL, struct.pack("=I", bits)))
    try:
        with nfnetlink.open_socket() as sock:
            sock.send(nfnetlink.request(_GET, REQUEST | DUMP, family, wanted + picked))
            return list(_received(sock, family))
    except OSError as error:
        if error.errno in _NO_TRACKING:
            return []
        raise


def _received(sock: socket.socket, family: socket.AddressFamily) -> Iterator[Flow]:
    while True:
        for kind, body in messages(sock.recv(_LARGE)):
            if kind == DONE:
                return
            if kind == ERROR:
                (number,) = struct.unpack_from("=i", body)
                raise OSError(-number, "connections cannot be listed")
            yield _flow(family, nfnetlink.split(body)[1])


def _all(data: bytes) -> dict[int, bytes]:
    return dict(attributes(data))


def _flow(family: socket.AddressFamily, body: bytes) -> Flow:
    found = _all(body)
    original, reply = _all(found[_ORIGINAL]), _all(found[_REPLY])
    numbers = _all(original[_PROTOCOL])
    name = b"".join(
        attribute(kind | nested, found[kind])
        for kind, nested in ((_ORIGINAL, NESTED), (_ID, 0), (_ZONE, 0))
        if kind in found
    )
    addresses = _all(original[_ADDRESSES])
    return Flow(
        family,
        numbers[_NUMBER][0],
        socket.inet_ntop(family, addresses[_SOURCE[family]]),
        socket.inet_ntop(family, addresses[_DESTINATION[family]]),
        int.from_bytes(numbers.get(_DESTINATION_PORT, b""), "big"),
        socket.inet_ntop(family, _all(reply[_ADDRESSES])[_SOURCE[family]]),
        name,
    )
