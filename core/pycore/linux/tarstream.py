"""The entries of a tar file that nobody vouches for, one by one, in bounded memory.

Read are the formats of POSIX (pax, ustar), of GNU tar and of V7, with sparse files in all four of GNU tar's ways.
"""

from __future__ import annotations

import enum
import functools
import re
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pycore.linux.compression import Readable, decompressed

MAX_BYTES = 64 << 30
"""Of the archive when decompressed, and of the files in it with their holes: together with the next two, the
measure that stops an archive which would fill any disk."""
MAX_ENTRIES = 4_000_000
MAX_HEADER = 1 << 20
"""Bytes of headers in front of one entry."""
MAX_GLOBAL = 64
"""Keys of global headers, which hold for all entries after them."""

BLOCK = 512
CHUNK = 1 << 20
_NAME = ("utf-8", "surrogateescape")
XATTR = "SCHILY.xattr."
"""Before the name of an attribute, in an extended header."""
_MAX_ID = 0xFFFFFFFE
_MAX_TIME = 0xFFFFFFFF
"""Seconds that every file system takes."""
_HEADER = struct.Struct("100s 24s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")
_CHECKSUM = slice(148, 156)
_OLD_MAP, _OLD_MORE, _OLD_SIZE = slice(41, 137), 137, slice(138, 150)
"""In the field that is ustar's prefix."""
_RECORD = re.compile(rb"([0-9]{1,20}) ")
_TIME = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]*))?")

DAMAGED = (ValueError, EOFError, OverflowError)
"""What is raised for an archive that is not sound."""


class Refused(Exception):
    """The archive may be sound, and is not unpacked: it is beyond measure."""


class Kind(enum.Enum):
    """What an entry is."""

    FILE = "a file"
    HARD_LINK = "a hard link"
    LINK = "a symbolic link"
    CHARACTER = "a character device"
    BLOCK = "a block device"
    DIRECTORY = "a directory"
    FIFO = "a named pipe"


_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE, b"1": Kind.HARD_LINK, b"2": Kind.LINK,
    b"3": Kind.CHARACTER, b"4": Kind.BLOCK, b"5": Kind.DIRECTORY, b"6": Kind.FIFO,
}  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One thing in the archive."""

    name: str
    """As it stands there, but for the slash at the end of a directory's."""
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    """Bytes of a file, its holes included."""
    mtime: int
    """Nanoseconds since 1970."""
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


Extent = tuple[int, int]
"""Where a file has data: from where, and how much."""


@runtime_checkable
class Skipping(Readable, Protocol):
    """What can also go past something without reading it."""

    def skip(self, count: int, /) -> None:
        """Raises EOFError where there is no more."""
        ...


class Content:
    """What is in the entry that has been met last."""

    def __init__(self, stream: _Stream, extents: list[Extent]) -> None:
        self._stream, self._extents = stream, extents
        self.place = stream.position
        """Where its data begins in the archive."""

    def is_whole(self, size: int) -> bool:
        """Whether all bytes of a file of this size lie there, one after the other. To be asked before any is read."""
        return self._extents == ([(0, size)] if size else [])

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """Where in the file, and what; what lies between is a hole. A piece is to be used before the next is asked for.

        Raises EOFError where the archive ends too early.
        """
        while self._extents:
            place, left = self._extents[0]
            if not left:
                del self._extents[0]
                continue
            data = self._stream.some(left)
            self._extents[0] = (place + len(data), left - len(data))
            yield place, data


def members(
    file: Readable, compressed: bool = True, *, end_mark: bool = True
) -> Generator[tuple[Content, Entry], None, None]:
    """The entries in order, each to be read before the next, then whatever follows, for its checksum.

    ``file`` is read from its place on; one that is :class:`Skipping` is not read where nobody asks for what is there.
    ``compressed`` says whether it may be, ``end_mark`` whether it must say that it is at its end, which need not be
    where something else vouches for it.

    Raises one of :data:`DAMAGED`, :class:`Refused`, or OSError.
    """
    stream = _Stream(decompressed(file) if compressed else file)
    reader = _Reader(stream, end_mark)
    count = 0
    while (entry := reader.next()) is not None:
        count += 1
        if count > MAX_ENTRIES:
            raise Refused(f"it has more than {MAX_ENTRIES} entries")
        yield Content(stream, reader.extents), entry
        stream.skip_to(reader.end)
    stream.drain()


class _Stream:
    """The archive, forward only, counted."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._skip = source.skip if isinstance(source, Skipping) else None
        self._chunk = b""
        self._at = 0
        """Where in the chunk the next byte is."""
        self._before = 0
        """Bytes before the chunk."""

    @property
    def position(self) -> int:
        return self._before + self._at

    def some(self, most: int) -> memoryview:
        """At least one byte. Raises EOFError at the end."""
        if self.at_end():
            raise EOFError("unexpected end of data")
        data = memoryview(self._chunk)[self._at : self._at + most]
        self._at += len(data)
        return data

    def exactly(self, count: int) -> bytes:
        """So many bytes. Raises EOFError."""
        data = self._chunk[self._at : self._at + count]
        self._at += len(data)
        while len(data) < count:
            data += self.some(count - len(data))
        return data

    def at_end(self) -> bool:
        return self._at == len(self._chunk) and not self._more()

    def skip_to(self, position: int) -> None:
        """Raises EOFError."""
        while (left := position - self.position) > 0:
            if self._at < len(self._chunk) or self._skip is None:
                self.some(left)
            else:
                self._skip(left)
                self._before += left

    def drain(self) -> None:
        """All that is left."""
        while not self.at_end():
            self.some(CHUNK)

    def _more(self) -> bool:
        self._before += len(self._chunk)
        self._chunk, self._at = self._source.read(CHUNK), 0
        if self._before + len(self._chunk) > MAX_BYTES:
            raise Refused(f"it is larger than {MAX_BYTES >> 30} GiB when unpacked")
        return bool(self._chunk)


class _Reader:
    """Headers, one after the other."""

    def __init__(self, stream: _Stream, end_mark: bool) -> None:
        self._stream, self._end_mark = stream, end_mark
        self._globals: dict[str, bytes] = {}
        self._begun = 0
        self.extents: list[Extent] = []
        """Where the entry met last has data."""
        self.end = 0
        """Where the next header is."""

    def next(self) -> Entry | None:
        """The next entry, past its headers; None at the end mark."""
        self._begun = self._stream.position
        pax: dict[str, bytes] = {}
        long: dict[str, bytes] = {}
        while (block := self._header()) is not None:
            fields = _HEADER.unpack(block)
            kind = fields[5]
            if kind not in b"xgLKXV":
                return self._entry(fields, self._globals | pax if self._globals else pax, long)
            data = self._payload(_number(fields[2]))
            if kind in b"xX":
                pax |= _records(data)
            elif kind == b"g":
                self._remember(data)
            elif kind != b"V":  # the label of a volume
                long["path" if kind == b"L" else "linkpath"] = data.partition(b"\0")[0]
        if pax or long:
            raise EOFError("no entry after its extended header")
        return None

    def _header(self) -> bytes | None:
        """A block that is a header; None where one of zeros, or of nothing, says that there is none any more."""
        stream = self._stream
        if stream.at_end():
            if self._end_mark:
                raise EOFError("no end mark after the last entry")
            return None
        block = stream.exactly(BLOCK)
        if not block[0] and not any(block):
            return None
        try:
            said = _number(block[_CHECKSUM])
        except ValueError:
            said = -1
        if said != _sum(block) and said != _signed_sum(block):  # of signed bytes: very old ones
            raise ValueError("no end mark and no sound header after the last entry")
        return block

    def _payload(self, size: int) -> bytes:
        """What belongs to a header."""
        if size < 0:
            raise ValueError("a header has a negative size")
        if self._stream.position - self._begun + size > MAX_HEADER:
            raise Refused("an entry is too long")
        return self._stream.exactly(size + -size % BLOCK)[:size]

    def _remember(self, data: bytes) -> None:
        self._globals |= _records(data)
        if len(self._globals) > MAX_GLOBAL:
            raise Refused("its global headers are too long")

    def _entry(self, fields: tuple[bytes, ...], pax: dict[str, bytes], long: dict[str, bytes]) -> Entry:
        name, rights, size, mtime, _, flag, link, magic, _, _, major, minor, prefix = fields
        kind = _KINDS.get(flag, Kind.FILE)  # of a kind that nobody knows: as POSIX asks for
        name = name.partition(b"\0")[0]
        if magic[:6] == b"ustar\0" and prefix[0]:
            name = prefix.partition(b"\0")[0] + b"/" + name
        if long:
            name, link = long.get("path", name), long.get("linkpath", link)
        if flag == b"\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # of V7
        device = kind in (Kind.CHARACTER, Kind.BLOCK)
        entry = Entry(
            name.decode(*_NAME), kind, *_rights(rights), _number(size), _within(_number(mtime)) * 1_000_000_000,
            link.partition(b"\0")[0].decode(*_NAME),
            _number(major) if device else 0, _number(minor) if device else 0,
        )  # fmt: skip
        if pax:
            _extend(entry, pax)
        if entry.size < 0 or not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise ValueError("an entry has a negative size" if entry.size < 0 else "an entry has an owner that is none")
        if kind is Kind.DIRECTORY:
            entry.name = entry.name.rstrip("/")
        if kind is not Kind.FILE:
            entry.size = 0  # some say how long the file is that they lead to; their own data is none
        self._place(entry, pax, fields)
        return entry

    def _place(self, entry: Entry, pax: dict[str, bytes], fields: tuple[bytes, ...]) -> None:
        """Where its data is, in the archive and in the file."""
        position = self._stream.position
        stored = entry.size
        self.extents = [(0, stored)] if stored else []
        if fields[5] == b"S":
            entry.size, self.extents = self._old_sparse(fields)
            position = self._stream.position
        elif entry.kind is Kind.FILE and any(key.startswith("GNU.sparse.") for key in pax):
            entry.size, self.extents = self._sparse(entry, pax)
            stored = stored - (self._stream.position - position)
            position = self._stream.position
        self.end = position + stored + -stored % BLOCK
        if sum(length for _, length in self.extents) != stored:
            raise ValueError("an entry's data is not as long as its map says")

    def _sparse(self, entry: Entry, pax: dict[str, bytes]) -> tuple[int, list[Extent]]:
        """A file with holes, by its extended header."""
        if "GNU.sparse.name" in pax:
            entry.name = pax["GNU.sparse.name"].decode(*_NAME)
        size = _decimal(pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size", str(entry.size).encode())))
        if pax.get("GNU.sparse.major") == b"1":
            return size, _checked(self._map_in_data(), size)
        numbers = [_decimal(each) for each in pax.get("GNU.sparse.map", b"").split(b",") if each]
        return size, _checked(numbers, size)

    def _map_in_data(self) -> list[int]:
        """Of format 1.0: numbers, a line each, the first of which says how many pairs of them there are."""
        parts = [self._payload(BLOCK)]
        first, newline, _ = parts[0].partition(b"\n")
        if not newline:
            raise ValueError("a sparse file's map is not sound")
        wanted, lines = 2 * _decimal(first) + 1, parts[0].count(b"\n")
        while lines < wanted:
            parts.append(self._payload(BLOCK))
            lines += parts[-1].count(b"\n")
        return [_decimal(line) for line in b"".join(parts).split(b"\n")[1:wanted]]

    def _old_sparse(self, fields: tuple[bytes, ...]) -> tuple[int, list[Extent]]:
        """Of GNU tar's own format: four pairs where ustar has the prefix, and blocks of 21 more."""
        table = fields[12]
        size = _number(table[_OLD_SIZE])
        parts, more = [table[_OLD_MAP]], table[_OLD_MORE]
        while more:
            block = self._payload(BLOCK)
            parts.append(block[:504])
            more = block[504]
        data = b"".join(parts)
        numbers = [_number(data[place : place + 12]) for place in range(0, len(data), 12)]
        while numbers[-2:] == [0, 0]:  # unused
            del numbers[-2:]
        return size, _checked(numbers, size)


def _checked(numbers: list[int], size: int) -> list[Extent]:
    """Pairs of numbers as what they mean: pieces one after the other, inside the file."""
    if len(numbers) % 2:
        raise ValueError("a sparse file's map is not sound")
    extents = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for start, length in extents:
        if start < end or length < 0 or start + length > size:
            raise ValueError("a sparse file's map is not sound")
        end = start + length
    return [extent for extent in extents if extent[1]]


def _extend(entry: Entry, pax: dict[str, bytes]) -> None:
    """What an extended header says stands above what the header has no room for."""
    xattrs: dict[str, bytes] = {}
    for key, value in pax.items():
        if key == "path":
            entry.name = value.decode(*_NAME)
        elif key == "linkpath":
            entry.link = value.decode(*_NAME)
        elif key == "mtime":
            entry.mtime = _time(value)
        elif key == "size":
            entry.size = _decimal(value)
        elif key in ("uid", "gid"):
            setattr(entry, key, _decimal(value))
        elif key.startswith(XATTR):
            xattrs[key.removeprefix(XATTR)] = value
    if xattrs:
        entry.xattrs = xattrs


def _records(data: bytes) -> dict[str, bytes]:
    """An extended header (pax(1)): records of a length, a key and a value. An empty value takes back an earlier one.

    GNU tar's oldest sparse maps are made of two keys that are there many times; they become one list here.
    """
    found: dict[str, bytes] = {}
    pairs: list[bytes] = []
    place = 0
    while place < len(data) and data[place]:
        match = _RECORD.match(data, place)
        end = place + int(match[1]) if match else 0
        if match is None or end <= match.end() or end > len(data) or data[end - 1] != 0x0A:
            raise ValueError("an extended header is not sound")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise ValueError("an extended header is not sound")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        else:
            found[key.decode(*_NAME)] = value
        place = end
    if pairs:
        found["GNU.sparse.map"] = b",".join(pairs)
    return found


def _sum(block: bytes) -> int:
    """Of a header's bytes, with blanks where it stands itself. The lower half of an Adler-32 is one more than the sum,
    as long as that is below 65,521: of up to 256 bytes. It takes a tenth of the time of sum().
    """
    halves = zlib.adler32(block[:256]) % 65536 + zlib.adler32(block[256:]) % 65536 - 2
    return halves - sum(block[_CHECKSUM]) + 8 * 0x20


def _signed_sum(block: bytes) -> int:
    """The same, as very old archives have it."""
    numbers: tuple[int, ...] = struct.unpack("512b", block)
    return sum(numbers) - sum(numbers[_CHECKSUM]) + 8 * 0x20


@functools.lru_cache(maxsize=1000)
def _rights(text: bytes) -> tuple[int, int, int]:
    """Mode, owner and group; most entries have those of many others."""
    return _number(text[:8]) & 0o7777, _number(text[8:16]), _number(text[16:])


def _number(text: bytes) -> int:
    """A number of a header: octal, or with the first bit set, binary (GNU tar's base-256). Raises ValueError."""
    if text[0] & 0x80:
        number = int.from_bytes(text, "big", signed=True)
        return number if text[0] & 0x40 else number + (1 << 8 * len(text) - 1)
    digits = text.partition(b"\0")[0].strip()
    return int(digits, 8) if digits else 0


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise ValueError(f"{text[:40]!r} is no number")
    return int(text)


def _time(text: bytes) -> int:
    """Seconds with a fraction, as nanoseconds."""
    match = _TIME.fullmatch(text.decode("ascii", "replace"))
    if match is None:
        raise ValueError(f"{text[:40]!r} is no time")
    whole = -int(match[2]) if match[1] else int(match[2])
    fraction = int((match[3] or "")[:9].ljust(9, "0")) if 0 <= whole <= _MAX_TIME and not match[1] else 0
    return _within(whole) * 1_000_000_000 + fraction


def _within(seconds: int) -> int:
    return min(max(seconds, 0), _MAX_TIME)
