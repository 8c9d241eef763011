"""Hears that something was taken away from nftables tables (NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h).

The kernel tells of every change, and at the end of each transaction which thread has made it.
"""

from __future__ import annotations

import errno
import socket

from pycore.linux import nfnetlink
from pycore.linux.nlmessages import REQUEST, messages, value_of

_GROUP = 7
_FAMILIES = (1, 7)
"""NFPROTO_INET, NFPROTO_BRIDGE; others are not asked for."""
_DELETED = {nfnetlink.NFTABLES | kind for kind in (2, 5, 8, 11)}
"""NFT_MSG_DELTABLE, DELCHAIN, DELRULE and DELSET, of which the first attribute in each names the table."""
_TABLE = 1
_NEW_GENERATION, _GET_GENERATION = nfnetlink.NFTABLES | 15, nfnetlink.NFTABLES | 16
_PROCESS = 2
"""NFTA_GEN_PROC_PID"""
_LARGE, _ROOM = 1 << 16, 1 << 20


class Deletions:
    """What is taken away from tables of one name, in this network namespace, from now on."""

    def __init__(self, table: str) -> None:
        """Raises OSError where the kernel has no nftables, or where we may not hear."""
        self._table = table.encode() + b"\0"
        self._hurt = False
        self._socket = nfnetlink.open_socket()
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
        found = False
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
            for kind, body in messages(data):
                if kind in _DELETED:
                    self._hurt = self._hurt or self._concerns_us(body)
                elif kind == _NEW_GENERATION:
                    found = found or (self._hurt and _maker(body) != _own_number())
                    self._hurt = False

    def _concerns_us(self, body: bytes) -> bool:
        family, about = nfnetlink.split(body)
        return family in _FAMILIES and value_of(about, _TABLE) == self._table


def _own_number() -> int:
    """What the kernel calls this thread, whatever process namespace it is in: it says so when it is asked.

    Not for nothing: whoever closes the socket waits for all that others have deleted, and they for that
    (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
    """
    with nfnetlink.open_socket() as sock:
        sock.send(nfnetlink.request(_GET_GENERATION, REQUEST, 0))
        for kind, answer in messages(sock.recv(_LARGE)):
            if kind == _NEW_GENERATION:
                return _maker(answer)
    return 0


def _maker(body: bytes) -> int:
    return int.from_bytes(value_of(nfnetlink.split(body)[1], _PROCESS), "big")
