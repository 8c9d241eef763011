"""Sends rtnetlink requests in one batch, in this network namespace or in that of another process."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

from pycore.linux import libc

_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port (netlink(7))."""

_NLMSG_ERROR = 2
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11


def send(messages: Sequence[bytes], pid: int = 0) -> None:
    """Send requests and take the acknowledgement of each; all must carry NLM_F_ACK.

    ``pid`` names a process in whose network namespace this happens, 0 stands for the calling thread's own.
    The kernel goes on after a request that fails. Raises the OSError of the first that did, with what the
    kernel says beyond its errno.
    """
    with _socket(pid) as sock:
        sock.send(b"".join(_numbered(messages)))
        errors = [error for _ in messages if (error := _acknowledgement(sock))]
    if errors:
        raise errors[0]


def _socket(pid: int) -> socket.socket:
    """A netlink socket; it belongs to the namespace in which it was made, wherever it is used later."""
    sock = _socket_elsewhere(pid) if pid else _socket_here()
    sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
    sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
    return sock


def _socket_here() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _socket_elsewhere(pid: int) -> socket.socket:
    """setns(2) moves the calling thread alone, so other threads do not notice."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.setns(theirs, libc.CLONE_NEWNET)
        finally:
            os.close(theirs)
        try:
            return _socket_here()
        finally:
            libc.setns(own, libc.CLONE_NEWNET)
    finally:
        os.close(own)


def _numbered(messages: Sequence[bytes]) -> Iterator[bytes]:
    for number, message in enumerate(messages, 1):
        length, kind, flags, _, port = _HEADER.unpack_from(message)
        yield _HEADER.pack(length, kind, flags, number, port) + message[_HEADER.size :]


def _acknowledgement(sock: socket.socket) -> OSError | None:
    """The next answer: the kernel has queued all of them by the time that send(2) returns, so nothing waits here."""
    answer = sock.recv(1 << 16, socket.MSG_DONTWAIT)
    _, kind, flags, _, _ = _HEADER.unpack_from(answer)
    if kind != _NLMSG_ERROR:
        raise OSError(f"netlink answered with a message of type {kind} instead of an acknowledgement")
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    if not number:
        return None
    said = _words(answer[_HEADER.size + 4 + _HEADER.size :]) if flags & _NLM_F_ACK_TLVS else ""
    return OSError(-number, os.strerror(-number) + (f" ({said})" if said else ""))


def _words(attributes: bytes) -> str:
    """The kernel's own sentence among the attributes of an extended acknowledgement, or an empty string."""
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == _NLMSGERR_ATTR_MSG:
            return attributes[4:length].rstrip(b"\0").decode("utf-8", "replace")
        attributes = attributes[max(4, (length + 3) & ~3) :]
    return ""
