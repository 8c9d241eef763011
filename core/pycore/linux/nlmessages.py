"""What netlink messages are made of (netlink(7)): a header and a body, in which attributes stand in a row."""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
ERROR, DONE = 2, 3
"""Types of the message that acknowledges or refuses, and of the last of a dump."""
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
"""NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP."""
NESTED = 0x8000
"""NLA_F_NESTED: of an attribute's kind, where there are attributes in it."""
_KIND = 0x3FFF
_ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr: length, kind; what follows is padded to four bytes."""


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A message, the first that is sent by its socket."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The type and the body of each message of an answer, which has as many as there was room for."""
    while len(data) >= HEADER.size:
        length, kind, _, _, _ = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : length]
        data = data[max(HEADER.size, _padded(length)) :]


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
