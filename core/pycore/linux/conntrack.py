"""Has the kernel forget connections that go by way of ports of this host (linux/netfilter/nfnetlink_conntrack.h)."""

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
_BY_NUMBER, _BY_DESTINATION_PORT = 1 << 3, 1 << 5
"""Bits of CTA_FILTER_ORIG_FLAGS (ctnetlink_filter_flags in nf_conntrack_netlink.c)."""
_LARGE = 1 << 16
_NO_TRACKING = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
"""What a kernel says that tracks no connections, or lets nobody ask for them."""


@dataclass(frozen=True)
class Flow:
    """A connection as the kernel tracks it."""

    family: socket.AddressFamily
    destination: str
    """Where its first packet was sent to."""
    port: int
    answers: str
    """Who answers it: another than its destination, where that is translated."""
    name: bytes
    """The attributes that tell it from others."""


def flows(protocol: str, ports: tuple[int, int], version: int) -> list[Flow]:
    """Connections whose first packet was sent to one of these ports, given by the first and the last.

    ``version`` of IP is 4 or 6. Raises OSError. Where the kernel tracks no connection at all, it is not asked: to look
    through an empty table takes it milliseconds.
    """
    if not _count():
        return []
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        with nfnetlink.open_socket() as sock:
            return list(_listed(sock, family, PROTOCOLS[protocol], ports))
    except OSError as error:
        if error.errno in _NO_TRACKING:
            return []
        raise


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


def _listed(sock: socket.socket, family: socket.AddressFamily, protocol: int, ports: tuple[int, int]) -> Iterator[Flow]:
    """The kernel picks by protocol, and by the port where it is one; a row of them is picked from here."""
    one = ports[0] == ports[1]
    numbers = attribute(_NUMBER, bytes([protocol])) + attribute(_DESTINATION_PORT, ports[0].to_bytes(2, "big"))
    bits = _BY_NUMBER | (_BY_DESTINATION_PORT if one else 0)
    wanted = attribute(_ORIGINAL | NESTED, attribute(_PROTOCOL | NESTED, numbers))
    picked = attribute(_FILTER | NESTED, attribute(_FILTER_ORIGINAL, struct.pack("=I", bits)))
    sock.send(nfnetlink.request(_GET, REQUEST | DUMP, family, wanted + picked))
    while True:
        for kind, body in messages(sock.recv(_LARGE)):
            if kind == DONE:
                return
            if kind == ERROR:
                (number,) = struct.unpack_from("=i", body)
                raise OSError(-number, "connections cannot be listed")
            flow = _flow(family, nfnetlink.split(body)[1])
            if ports[0] <= flow.port <= ports[1]:
                yield flow


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
    return Flow(
        family,
        socket.inet_ntop(family, _all(original[_ADDRESSES])[_DESTINATION[family]]),
        int.from_bytes(numbers.get(_DESTINATION_PORT, b""), "big"),
        socket.inet_ntop(family, _all(reply[_ADDRESSES])[_SOURCE[family]]),
        name,
    )
