"""Hears that something was taken away from nftables tables (NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h).

The kernel tells of every change, and at the end of each transaction which thread has made it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

_NETLINK_NETFILTER, _GROUP = 12, 7
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port (netlink(7))."""
_FAMILY = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource."""
_FAMILIES = (1, 7)
"""NFPROTO_INET, NFPROTO_BRIDGE; others are not asked for."""
_SUBSYSTEM = 10 << 8
"""NFNL_SUBSYS_NFTABLES"""
_DELETED = {_SUBSYSTEM | kind for kind in (2, 5, 8, 11)}
"""NFT_MSG_DELTABLE, DELCHAIN, DELRULE and DELSET, of which the first attribute in each names the table."""
_TABLE = 1
_NEW_GENERATION, _GET_GENERATION = _SUBSYSTEM | 15, _SUBSYSTEM | 16
_PROCESS = 2
"""NFTA_GEN_PROC_PID"""
_REQUEST = 1
_LARGE, _ROOM = 1 << 16, 1 << 20


class Deletions:
    """What is taken away from tables of one name, in this network namespace, from now on."""

    def __init__(self, table: str) -> None:
        """Raises OSError where the kernel has no nftables, or where we may not hear."""
        self._table = table.encode() + b"\0"
        self._hurt = False
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            self._socket.bind((0, 1 << _GROUP - 1))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For epoll(7): readable when rules have changed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def read(self) -> bool:
        """Read what there is: whether something was taken away by anybody but the calling thread, in a transaction that
        has come to its end. Where more was told than there is room for, something may have been.
        """
        thread, found = _own_number(), False
        while True:
            try:
                data = self._socket.recv(_LARGE)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            for kind, body in _messages(data):
                if kind in _DELETED:
                    self._hurt = self._hurt or self._concerns_us(body)
                elif kind == _NEW_GENERATION:
                    found = found or (self._hurt and _maker(body) != thread)
                    self._hurt = False

    def _concerns_us(self, body: bytes) -> bool:
        family, _, _ = _FAMILY.unpack_from(body)
        return family in _FAMILIES and _attributes(body[_FAMILY.size :]).get(_TABLE) == self._table


def _own_number() -> int:
    """What the kernel calls this thread, whatever process namespace it is in: it says so when it is asked."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
        body = _FAMILY.pack(0, 0, 0)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GET_GENERATION, _REQUEST, 1, 0) + body)
        for kind, answer in _messages(sock.recv(_LARGE)):
            if kind == _NEW_GENERATION:
                return _maker(answer)
    return 0


def _maker(body: bytes) -> int:
    return int.from_bytes(_attributes(body[_FAMILY.size :]).get(_PROCESS, b""), "big")


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[max(_HEADER.size, (length + 3) & ~3) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[max(4, (length + 3) & ~3) :]
    return found
