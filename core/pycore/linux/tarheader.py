"""What stands in front of an entry of a tar stream: a block of ustar's, and where that has no room, POSIX's extended
header before it (pax(1)). tarfile makes the same, and takes longer for it than all else that packing takes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from pycore.linux.tarstream import BLOCK, XATTR, Entry, Kind

_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 32s 32s 8s 8s 155s 12x")
_FLAGS = {
    Kind.FILE: b"0", Kind.HARD_LINK: b"1", Kind.LINK: b"2", Kind.CHARACTER: b"3", Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5", Kind.FIFO: b"6",
}  # fmt: skip
_MAX_SMALL, _MAX_LARGE = 0o7777777, 0o77777777777
"""Of fields of eight bytes, and of twelve."""
_MAX_NAME = 100


def header(entry: Entry, stored: int, more: Mapping[str, str] | None = None) -> bytes:
    """Of an entry of which so many bytes follow; ``more`` are keys of the extended header beside the entry's own."""
    name, link = entry.name.encode("utf-8", "surrogateescape"), entry.link.encode("utf-8", "surrogateescape")
    if entry.kind is Kind.DIRECTORY:
        name += b"/"
    records = _records(entry, name, link, stored)
    if more:
        records |= {key: value.encode("utf-8", "surrogateescape") for key, value in more.items()}
    block = _block(
        name, _FLAGS[entry.kind], link, entry.mode, entry.uid, entry.gid, stored, entry.mtime // 10**9,
        entry.major, entry.minor,
    )  # fmt: skip
    return _extended(records) + block if records else block


def _records(entry: Entry, name: bytes, link: bytes, stored: int) -> dict[str, bytes]:
    """What ustar has no room for, or what would mean something else to those who read other encodings."""
    found: dict[str, bytes] = {}
    if len(name) > _MAX_NAME or not name.isascii():
        found["path"] = name
    if len(link) > _MAX_NAME or not link.isascii():
        found["linkpath"] = link
    seconds, rest = divmod(entry.mtime, 10**9)
    if seconds < 0 or seconds > _MAX_LARGE:
        found["mtime"] = b"%d" % seconds
    elif rest:
        found["mtime"] = b"%d.%09d" % (seconds, rest)
    if stored > _MAX_LARGE:
        found["size"] = b"%d" % stored
    for key, number in (("uid", entry.uid), ("gid", entry.gid)):
        if number > _MAX_SMALL:
            found[key] = b"%d" % number
    for key, value in entry.xattrs.items():
        found[XATTR + key] = value
    return found


def _extended(records: Mapping[str, bytes]) -> bytes:
    lines = [_record(key.encode("utf-8", "surrogateescape"), value) for key, value in records.items()]
    if not all(_is_text(records.get(key, b"")) for key in ("path", "linkpath")):
        lines.insert(0, _record(b"hdrcharset", b"BINARY"))
    data = b"".join(lines)
    return _block(b"././@PaxHeader", b"x", b"", 0, 0, 0, len(data), 0, 0, 0) + data + bytes(-len(data) % BLOCK)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    """With its own length before it, that of the length included."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _block(
    name: bytes, flag: bytes, link: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, major: int, minor: int,
) -> bytes:  # fmt: skip
    block = _HEADER.pack(
        name[:_MAX_NAME], b"%07o\0" % mode, _number(uid, _MAX_SMALL), _number(gid, _MAX_SMALL),
        _number(size, _MAX_LARGE), _number(mtime, _MAX_LARGE), b"        ", flag, link[:_MAX_NAME], b"ustar\x0000",
        b"", b"", b"%07o\0" % major, b"%07o\0" % minor, b"",
    )  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(number: int, most: int) -> bytes:
    """In octal digits; one that has no room stands in the extended header."""
    width = 7 if most == _MAX_SMALL else 11
    return b"%0*o\0" % (width, number if 0 <= number <= most else 0)
