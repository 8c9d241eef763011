"""Keys and values of nftables sets, as nft writes them and as the kernel has them: of ``tcp . 80`` 06000000 00500000.

The kernel itself knows no types, only lengths; it keeps the numbers of nft's types with a set for whoever reads it
(include/datatype.h of nftables, where they are said never to change). Of types that have a size, those are here that
networks need.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_BITS = 6
"""Of a type's number, where the types of a concatenation stand in one number (TYPE_BITS)."""
_INTEGER = 4
"""A type of any size: of what a payload has at a place."""
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
"""Names by which nft writes protocols; the others stand as numbers."""
_NAMES = {number: name for name, number in _PROTOCOLS.items()}


@dataclass(frozen=True)
class _Type:
    size: int
    """Bytes."""
    encode: Callable[[str], bytes]
    """Raises ValueError or OverflowError, or OSError for what is no address."""
    decode: Callable[[bytes], str]
    is_address: bool = False
    is_port: bool = False


@dataclass(frozen=True)
class Field:
    """A part of a key or a value."""

    type: _Type
    size: int
    room: int
    """With what pads it."""


def _ints(size: int) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    return (lambda text: int(text).to_bytes(size, "big")), (lambda data: str(int.from_bytes(data, "big")))


def _address(family: socket.AddressFamily) -> tuple[Callable[[str], bytes], Callable[[bytes], str]]:
    return (lambda text: socket.inet_pton(family, text)), (lambda data: socket.inet_ntop(family, data))


def _protocol(text: str) -> bytes:
    return (_PROTOCOLS[text] if text in _PROTOCOLS else int(text)).to_bytes(1, "big")


def _device(text: str) -> bytes:
    name = text.strip('"').encode()
    if not 0 < len(name) < 16 or name.endswith(b"*"):  # IFNAMSIZ; with a star nft means all that begin so
        raise ValueError(text)
    return name.ljust(16, b"\0")


def _hardware(text: str) -> bytes:
    octets = bytes.fromhex(text.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(text)
    return octets


def _integer(size: int) -> _Type:
    return _Type(
        size, lambda text: int(text, 0).to_bytes(size, "big"), lambda data: f"{int.from_bytes(data, 'big'):#x}"
    )


_TYPES = {
    7: _Type(4, *_address(socket.AF_INET), is_address=True),
    8: _Type(16, *_address(socket.AF_INET6), is_address=True),
    9: _Type(6, _hardware, lambda data: data.hex(":")),
    12: _Type(1, _protocol, lambda data: _NAMES.get(data[0], str(data[0]))),
    13: _Type(2, *_ints(2), is_port=True),
    41: _Type(16, _device, lambda data: f'"{data.rstrip(bytes(1)).decode("utf-8", "replace")}"'),
}
"""ipv4_addr, ipv6_addr, ether_addr, inet_proto, inet_service, ifname."""


def fields(number: int, size: int) -> tuple[Field, ...]:
    """The parts of a key or a value of so many bytes, whose type nft gives this number. Raises ValueError where there
    is one among them that is not known here.
    """
    numbers = list[int]()
    while number:
        numbers.insert(0, number & (1 << _BITS) - 1)
        number >>= _BITS
    if any(each != _INTEGER and each not in _TYPES for each in numbers):
        raise ValueError("a set of a type that is not known")
    known = sum(_padded(_TYPES[each].size) for each in numbers if each != _INTEGER)
    types = [_integer(size - known) if each == _INTEGER else _TYPES[each] for each in numbers]
    return tuple(Field(each, each.size, _padded(each.size) if len(types) > 1 else each.size) for each in types)


def encode(parts: Sequence[Field], text: str) -> tuple[bytes, bytes]:
    """The first and the last of what a key or a value stands for: the same but for networks and ranges.

    Raises ValueError where it is not of these types.
    """
    first = last = b""
    try:
        for part, word in zip(parts, text.split(" . "), strict=True):
            ends = _ends(part.type, word)
            first += ends[0].ljust(part.room, b"\0")
            last += ends[1].ljust(part.room, b"\0")
    except (ValueError, OSError, OverflowError) as error:
        raise ValueError(f"not of the set's types: {text}") from error
    return first, last


def decode(parts: Sequence[Field], first: bytes, last: bytes) -> str:
    """The inverse of :func:`encode`, in the words that nft chooses: a network where a range is one."""
    words, start = list[str](), 0
    for part in parts:
        end = start + part.size
        words.append(_word(part.type, first[start:end], last[start:end]))
        start += part.room
    return " . ".join(words)


def after(last: bytes) -> bytes | None:
    """What follows the last of a range; nothing where that is the last of all."""
    number = int.from_bytes(last, "big") + 1
    return None if number >> 8 * len(last) else number.to_bytes(len(last), "big")


def before(end: bytes) -> bytes:
    """The inverse of :func:`after`."""
    return (int.from_bytes(end, "big") - 1).to_bytes(len(end), "big")


def _ends(kind: _Type, word: str) -> tuple[bytes, bytes]:
    if kind.is_address and "/" in word:
        address, _, length = word.partition("/")
        return _network(kind.encode(address), int(length))
    if (kind.is_address or kind.is_port) and "-" in word:
        first, _, last = word.partition("-")
        ends = kind.encode(first), kind.encode(last)
        if ends[0] > ends[1]:
            raise ValueError(word)
        return ends
    one = kind.encode(word)
    return one, one


def _network(address: bytes, length: int) -> tuple[bytes, bytes]:
    """The first and the last address; bits of the host in the first are ignored, as nft does."""
    bits = 8 * len(address)
    if not 0 <= length <= bits:
        raise ValueError(length)
    host = (1 << bits - length) - 1
    number = int.from_bytes(address, "big")
    return (number & ~host).to_bytes(len(address), "big"), (number | host).to_bytes(len(address), "big")


def _word(kind: _Type, first: bytes, last: bytes) -> str:
    if first == last:
        return kind.decode(first)
    host = int.from_bytes(first, "big") ^ int.from_bytes(last, "big")
    length = 8 * len(first) - host.bit_length()
    if kind.is_address and _network(first, length) == (first, last):
        return f"{kind.decode(first)}/{length}"
    return f"{kind.decode(first)}-{kind.decode(last)}"


def _padded(size: int) -> int:
    return (size + 3) & ~3
