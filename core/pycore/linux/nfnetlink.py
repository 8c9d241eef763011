"""Messages to and from netfilter (linux/netfilter/nfnetlink.h): netlink's, each with a family at its head."""

from __future__ import annotations

import socket
import struct

from pycore.linux import nlmessages

_NETLINK_NETFILTER = 12
_HEAD = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource."""


def open_socket() -> socket.socket:
    """A socket to netfilter of this network namespace. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)


def request(kind: int, flags: int, family: int, attributes: bytes = b"") -> bytes:
    """A message; ``kind`` has the number of the subsystem in its upper byte."""
    return nlmessages.message(kind, flags, _HEAD.pack(family, 0, 0) + attributes)


def split(body: bytes) -> tuple[int, bytes]:
    """The family and the attributes of a message's body."""
    return body[0], body[_HEAD.size :]
