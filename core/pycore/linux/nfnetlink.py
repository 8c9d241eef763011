"""Messages to and from netfilter (linux/netfilter/nfnetlink.h): netlink's, each with a family at its head."""

from __future__ import annotations

import os
import socket
import struct
import sys

from pycore.linux import nlmessages

_NETLINK_NETFILTER = 12
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
"""Of tables, as nft names them (NFPROTO_* of linux/netfilter.h)."""
NFTABLES = 10 << 8
"""NFNL_SUBSYS_NFTABLES, where a message's type has it."""
_BEGIN, _END = 16, 17
"""NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END."""
_LARGE = 1 << 16
_HEAD = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource."""
_OF_NFTABLES = struct.pack(">BBH", 0, 0, NFTABLES >> 8)
"""At the head of a batch the resource is the subsystem, big end first."""


def open_socket() -> socket.socket:
    """A socket to netfilter of this network namespace. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)


def namespace() -> tuple[int, int]:
    """The process and its network namespace: a socket or a context that is kept is good for one such place."""
    return os.getpid(), os.stat("/proc/thread-self/ns/net").st_ino


def request(kind: int, flags: int, family: int, attributes: bytes = b"", sequence: int = 1) -> bytes:
    """A message; ``kind`` has the number of the subsystem in its upper byte."""
    return nlmessages.message(kind, flags, _HEAD.pack(family, 0, 0) + attributes, sequence)


def batch(requests: bytes) -> bytes:
    """Requests to nftables as one transaction."""
    begin, end = (nlmessages.message(kind, nlmessages.REQUEST, _OF_NFTABLES, 0) for kind in (_BEGIN, _END))
    return begin + requests + end


def dump(sock: socket.socket, question: bytes) -> list[bytes]:
    """The bodies of all that answers a question with the flag DUMP.

    It is asked again where a transaction came between. Raises OSError with what the kernel says.
    """
    while True:
        sock.send(question)
        found, is_whole = _dumped(sock)
        if is_whole:
            return found


def _dumped(sock: socket.socket) -> tuple[list[bytes], bool]:
    found, is_whole = list[bytes](), True
    while True:
        data = sock.recv(_LARGE)
        is_whole = is_whole and not nlmessages.is_interrupted(data)
        for kind, body in nlmessages.messages(data):
            if kind in (nlmessages.DONE, nlmessages.ERROR):
                number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                if number:
                    raise OSError(number, f"nftables: {os.strerror(number)}")
                return found, is_whole
            found.append(body)


def split(body: bytes) -> tuple[int, bytes]:
    """The family and the attributes of a message's body."""
    return body[0], body[_HEAD.size :]
