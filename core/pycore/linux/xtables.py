"""Reads what nft(8) does not show: matches and targets of iptables in rules of nftables, as the kernel keeps them.

iptables-nft writes what nftables has no words for as an expression ``match`` or ``target``, with the structure that
iptables has always passed to the kernel (``linux/netfilter/xt_*.h``). libnftables gives no more than its name.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port (netlink(7))."""
_ABOUT = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource (linux/netfilter/nfnetlink.h)."""
_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NEWRULE, _GETRULE = 10 << 8 | 6, 10 << 8 | 7
_RULE_TABLE, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 3, 4
_NAME, _DATA, _REVISION, _INFO = 1, 2, 2, 3
"""NFTA_EXPR_NAME and NFTA_EXPR_DATA; then NFTA_MATCH_REV and NFTA_MATCH_INFO, which targets have the same."""


@dataclass(frozen=True)
class Extension:
    """A match or a target of iptables in a rule."""

    name: str
    """``conntrack``, ``REJECT``."""
    revision: int
    info: bytes
    """Its structure, in this machine's byte order, padded at its end."""


def extensions(table: str) -> dict[int, list[Extension]]:
    """Those of each rule of a table (``ip filter``), by the rule's handle and in the rule's order. Raises OSError."""
    family, _, name = table.partition(" ")
    wanted = _attribute(_RULE_TABLE, name.encode() + b"\0")
    body = _ABOUT.pack(_FAMILIES[family], 0, 0) + wanted
    found: dict[int, list[Extension]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GETRULE, _REQUEST_DUMP, 1, 0) + body)
        for rule in _answers(sock):
            attributes = dict(_attributes(rule[_ABOUT.size :]))
            there = list(_extensions(attributes.get(_RULE_EXPRESSIONS, b"")))
            if there:
                found[int.from_bytes(attributes[_RULE_HANDLE], "big")] = there
    return found


def _answers(sock: socket.socket) -> Iterator[bytes]:
    """The bodies of a dump, which the kernel writes as it is read."""
    while True:
        data = sock.recv(1 << 16)
        while data:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                number = -int.from_bytes(data[_HEADER.size : _HEADER.size + 4], "little", signed=True)
                if number not in (0, errno.ENOENT):
                    raise OSError(number, f"nftables: {os.strerror(number)}")
                return
            if kind == _NEWRULE:
                yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _extensions(expressions: bytes) -> Iterator[Extension]:
    for _, expression in _attributes(expressions):
        parts = dict(_attributes(expression))
        if parts.get(_NAME, b"").rstrip(b"\0") in (b"match", b"target"):
            about = dict(_attributes(parts.get(_DATA, b"")))
            name = about.get(_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
            yield Extension(name, int.from_bytes(about.get(_REVISION, b""), "big"), about.get(_INFO, b""))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of attributes in a row (struct nlattr, each padded to four bytes)."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]  # without the bit that says that there are attributes inside
        data = data[max(4, (length + 3) & ~3) :]
