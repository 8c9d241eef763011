"""Has the kernel forget connections that go by way of ports of this host (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}

_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port (netlink(7))."""
_FAMILY = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource."""
_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
"""IPCTNL_MSG_CT_GET and _DELETE of NFNL_SUBSYS_CTNETLINK."""
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_NESTED, _KIND = 0x8000, 0x3FFF
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
        with _socket() as sock:
            return list(_listed(sock, family, PROTOCOLS[protocol], ports))
    except OSError as error:
        if error.errno in _NO_TRACKING:
            return []
        raise


def forget(unwanted: Collection[Flow]) -> None:
    """Have the kernel forget connections; one that has ended by now is fine. Raises OSError."""
    if not unwanted:
        return
    with _socket() as sock:
        for flow in unwanted:
            sock.send(_message(_DELETE, _REQUEST | _ACK, flow.family, flow.name))
            _, _, answer = next(_messages(sock.recv(_LARGE)))
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


def _socket() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)


def _listed(sock: socket.socket, family: socket.AddressFamily, protocol: int, ports: tuple[int, int]) -> Iterator[Flow]:
    """The kernel picks by protocol, and by the port where it is one; a row of them is picked from here."""
    one = ports[0] == ports[1]
    numbers = _attribute(_NUMBER, bytes([protocol])) + _attribute(_DESTINATION_PORT, ports[0].to_bytes(2, "big"))
    bits = _BY_NUMBER | (_BY_DESTINATION_PORT if one else 0)
    wanted = _attribute(_ORIGINAL | _NESTED, _attribute(_PROTOCOL | _NESTED, numbers))
    picked = _attribute(_FILTER | _NESTED, _attribute(_FILTER_ORIGINAL, struct.pack("=I", bits)))
    sock.send(_message(_GET, _REQUEST | _DUMP, family, wanted + picked))
    while True:
        for kind, _, body in _messages(sock.recv(_LARGE)):
            if kind == _DONE:
                return
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", body)
                raise OSError(-number, "connections cannot be listed")
            flow = _flow(family, body[_FAMILY.size :])
            if ports[0] <= flow.port <= ports[1]:
                yield flow


def _flow(family: socket.AddressFamily, body: bytes) -> Flow:
    found = _attributes(body)
    original, reply = _attributes(found[_ORIGINAL]), _attributes(found[_REPLY])
    numbers = _attributes(original[_PROTOCOL])
    name = b"".join(
        _attribute(kind | nested, found[kind])
        for kind, nested in ((_ORIGINAL, _NESTED), (_ID, 0), (_ZONE, 0))
        if kind in found
    )
    return Flow(
        family,
        socket.inet_ntop(family, _attributes(original[_ADDRESSES])[_DESTINATION[family]]),
        int.from_bytes(numbers.get(_DESTINATION_PORT, b""), "big"),
        socket.inet_ntop(family, _attributes(reply[_ADDRESSES])[_SOURCE[family]]),
        name,
    )


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = _FAMILY.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of each message."""
    while len(data) >= _HEADER.size:
        length, kind, flags, _, _ = _HEADER.unpack_from(data)
        yield kind, flags, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _attribute(kind: int, value: bytes) -> bytes:
    """A struct nlattr, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) & 3)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & _KIND] = data[4:length]
        data = data[max(4, (length + 3) & ~3) :]
    return found
