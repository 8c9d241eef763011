"""Sends rtnetlink requests in one batch, in this network namespace or in that of another process."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence

from pycore.linux.netns import socket_in
from pycore.linux.nlmessages import (
    CAP_ACK,
    DONE,
    DUMP,
    ERROR,
    HEADER,
    REQUEST,
    SOL_NETLINK,
    attribute,
    message,
    messages,
    value_of,
)

_LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change (rtnetlink(7))."""

_ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, length of the destination's prefix, and more that nobody asks for here (rtnetlink(7))."""

_RTM_GETLINK, _RTM_GETROUTE = 18, 26
_RTA_DST, _RTA_GATEWAY = 1, 5
_IFLA_IFNAME, _IFLA_OPERSTATE, _IF_OPER_UP = 3, 16, 6
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_EXT_ACK = 11
"""NETLINK_EXT_ACK"""


def send(requests: Sequence[bytes], pid: int = 0) -> None:
    """Send requests and take the acknowledgement of each; all must carry NLM_F_ACK.

    ``pid`` names a process in whose network namespace this happens, 0 stands for the calling thread's own.
    The kernel goes on after a request that fails. Raises the OSError of the first that did, with what the
    kernel says beyond its errno.
    """
    with _socket(pid) as sock:
        sock.send(b"".join(_numbered(requests)))
        errors = [error for _ in requests if (error := _acknowledgement(sock))]
    if errors:
        raise errors[0]


def wait_until_up(names: Sequence[str], pid: int = 0, seconds: float = 1.0) -> None:
    """Wait until devices can send and receive, which is a moment after they were brought up.

    The kernel does the last step later, in a worker (net/core/link_watch.c), and drops what is sent before; a lost
    ARP request costs a second. From Linux 6.8 on to ask for the state makes it do that step at once. Raises
    OSError: ENODEV, or ETIMEDOUT after so many ``seconds``.
    """
    deadline = time.monotonic() + seconds
    with _socket(pid) as sock:
        for name in names:
            while _state(sock, name) != _IF_OPER_UP:
                if time.monotonic() > deadline:
                    raise OSError(errno.ETIMEDOUT, "the device does not come up", name)
                time.sleep(0.001)


def routes(family: int) -> set[str]:
    """Where the routes of this namespace lead, of all its tables: ``10.0.0.0/8``; default routes are left out.

    ``family`` is AF_INET or AF_INET6. The host's own addresses are routes too, of the table ``local``.
    """
    found: set[str] = set()
    for length, attributes in _routes(family, 0):
        if length:
            found.add(f"{socket.inet_ntop(family, value_of(attributes, _RTA_DST))}/{length}")
    return found


def gateways(pid: int) -> set[str]:
    """Where the default routes lead of the network namespace of a process; ``0.0.0.0`` or ``::`` is just out of a
    device. Raises OSError.
    """
    found: set[str] = set()
    for family, anyone in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for length, attributes in _routes(family, pid):
            gateway = value_of(attributes, _RTA_GATEWAY)
            if not length:
                found.add(socket.inet_ntop(family, gateway) if gateway else anyone)
    return found


def _routes(family: int, pid: int) -> Iterator[tuple[int, bytes]]:
    """The length of the prefix and the attributes of each route."""
    with _socket(pid) as sock:
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        sock.send(message(_RTM_GETROUTE, REQUEST | DUMP, body))
        while True:
            for kind, route in messages(_answer(sock)):
                if kind in (DONE, ERROR):
                    return
                yield route[1], route[_ROUTE.size :]


def _socket(pid: int) -> socket.socket:
    """A netlink socket; it belongs to the namespace in which it was made, wherever it is used later."""
    sock = _socket_elsewhere(pid) if pid else _socket_here()
    sock.setsockopt(SOL_NETLINK, _EXT_ACK, 1)
    sock.setsockopt(SOL_NETLINK, CAP_ACK, 1)
    return sock


def _socket_here() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _socket_elsewhere(pid: int) -> socket.socket:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return socket_in(namespace, _socket_here)
    finally:
        os.close(namespace)


def _numbered(requests: Sequence[bytes]) -> Iterator[bytes]:
    for number, each in enumerate(requests, 1):
        length, kind, flags, _, port = HEADER.unpack_from(each)
        yield HEADER.pack(length, kind, flags, number, port) + each[HEADER.size :]


def _answer(sock: socket.socket) -> bytes:
    """The next answer: the kernel has queued all of them by the time that send(2) returns, so nothing waits here."""
    return sock.recv(1 << 16, socket.MSG_DONTWAIT)


def _acknowledgement(sock: socket.socket) -> OSError | None:
    return _error(_answer(sock))


def _error(answer: bytes) -> OSError | None:
    """What an answer says went wrong; None for an acknowledgement, or for data."""
    _, kind, flags, _, _ = HEADER.unpack_from(answer)
    (number,) = struct.unpack_from("=i", answer, HEADER.size)
    if kind != ERROR or not number:
        return None
    said = value_of(answer[HEADER.size + 4 + HEADER.size :], _NLMSGERR_ATTR_MSG) if flags & _NLM_F_ACK_TLVS else b""
    words = said.rstrip(b"\0").decode("utf-8", "replace")
    return OSError(-number, os.strerror(-number) + (f" ({words})" if words else ""))


def _state(sock: socket.socket, name: str) -> int:
    """A device's operational state (RFC 2863)."""
    body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    sock.send(message(_RTM_GETLINK, REQUEST, body))
    answer = _answer(sock)
    error = _error(answer)
    if error:
        error.filename = name
        raise error
    return int.from_bytes(value_of(answer[HEADER.size + _LINK.size :], _IFLA_OPERSTATE), "little")
