"""What netlink messages are made of (netlink(7)): a header and a body, in which attributes stand in a row."""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
_NUMBER = struct.Struct("=i")
ERROR, DONE = 2, 3
"""Types of the message that acknowledges or refuses, and of the last of a dump."""
REQUEST, ACK, DUMP, CREATE = 0x1, 0x4, 0x300, 0x400
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_CREATE."""
SOL_NETLINK, CAP_ACK = 270, 10
"""Level and name of the option that has a refusal carry no more of what is refused than its header."""
NESTED = 0x8000
"""NLA_F_NESTED: of an attribute's kind, where there are attributes in it."""
_INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR"""
_KIND = 0x3FFF
_ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr: length, kind; what follows is padded to four bytes."""


def message(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    """A message; ``sequence`` tells it from others that are sent with it."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each message of an answer, which has as many as there was room for."""
    for (length, kind, _, _, _), start in _headers(data):
        yield kind, data[start + HEADER.size : start + length]


def is_interrupted(data: bytes) -> bool:
    """Whether what is dumped has changed since the dump began: something may be missing, or there twice."""
    return any(flags & _INTERRUPTED for (_, _, flags, _, _), _ in _headers(data))


def refusal(body: bytes) -> tuple[int, int]:
    """Of a message of the type ERROR: the errno, 0 where it only acknowledges, and the sequence of what it answers."""
    return -_NUMBER.unpack_from(body)[0], HEADER.unpack_from(body, _NUMBER.size)[3]


def _headers(data: bytes) -> Iterator[tuple[tuple[int, ...], int]]:
    start = 0
    while len(data) - start >= HEADER.size:
        header = HEADER.unpack_from(data, start)
        yield header, start
        start += max(HEADER.size, _padded(header[0]))


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) & 3)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of attributes in a row, without the bits that say how a value is to be read."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind & _KIND, data[_ATTRIBUTE.size : length]
        data = data[max(_ATTRIBUTE.size, _padded(length)) :]


def value_of(data: bytes, wanted: int) -> bytes:
    """The value of an attribute in a row of them; empty where it is not there."""
    return next((value for kind, value in attributes(data) if kind == wanted), b"")


def _padded(length: int) -> int:
    return (length + 3) & ~3
