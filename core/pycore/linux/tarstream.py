"""The entries of a tar file that nobody vouches for, one by one, in bounded memory.

:mod:`tarfile` parses; it reads a header whole, however long it says it is, takes what follows a broken
header for the end, and keeps all it has met. The stream below it is where that is held in check.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

MAX_BYTES = 64 << 30
"""Of the archive when decompressed, and of the files in it with their holes: together with the next two, the
measure that stops an archive which would fill any disk."""
MAX_ENTRIES = 4_000_000
MAX_HEADER = 1 << 20
"""Bytes of headers in front of one entry."""
MAX_GLOBAL = 64
"""Keys of global headers, which tarfile keeps for all entries after them."""
MAX_MEMORY = 256 << 20
"""Bytes that decompression may take; xz -9 takes 65 MiB (xz(1))."""

_CHUNK = 1 << 20
_BLOCK = 512

DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError, RecursionError)
"""What tarfile and the decompressors raise for an archive that is not sound."""


class Refused(Exception):
    """The archive may be sound, and is not unpacked: it is beyond measure, or asks for what this Python lacks."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def members(file: IO[bytes], compressed: bool = True) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The entries in order, each to be read before the next, then whatever follows, for its checksum.

    ``file`` is read from its place on and need not be seekable; ``compressed`` says whether it may be.

    Raises one of :data:`DAMAGED`, :class:`Refused`, or OSError; gzip and bz2 raise it without an errno for
    bad data.
    """
    stream = _Stream(decompressed(file) if compressed else file)
    tar = tarfile.TarFile(fileobj=cast(IO[bytes], stream), encoding="utf-8", errors="surrogateescape")
    count = 0
    while (member := tar.next()) is not None:
        if member.size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        stream.allowance = MAX_BYTES
        yield tar, member
        stream.allowance = MAX_HEADER
        cast(Any, tar).members.clear()  # tarfile keeps every entry; the type stubs do not know it
        count += 1
        if count > MAX_ENTRIES:
            raise Refused(f"it has more than {MAX_ENTRIES} entries")
        if len(tar.pax_headers) > MAX_GLOBAL:
            raise Refused("its global headers are too long")
    if stream.last != bytes(_BLOCK):
        raise tarfile.ReadError("no end mark after the last entry")
    stream.allowance = MAX_BYTES
    while stream.read(_CHUNK):
        pass


class _Stream:
    """The decompressed archive, forward only, with a limit to what headers and the whole may take.

    As tarfile's file object it is asked to seek forward over what was not read, never back by a sound archive.
    """

    def __init__(self, source: _Readable) -> None:
        self._source = source
        self._position = 0
        self.allowance = MAX_HEADER
        """How many bytes may still be read until somebody sets it anew; skipping is free."""
        self.last = b""
        """What was read last."""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or position < self._position:
            raise tarfile.ReadError("an entry points back")
        while self._position < position:
            if not self._take(min(_CHUNK, position - self._position)):
                raise tarfile.ReadError("unexpected end of data")
        return self._position

    def read(self, size: int) -> bytes:
        self.allowance -= size
        if size < 0 or self.allowance < 0:
            raise Refused("an entry is too long")
        self.last = self._take(size)
        return self.last

    def _take(self, size: int) -> bytes:
        data = self._source.read(size)
        self._position += len(data)
        if self._position > MAX_BYTES:
            raise Refused(f"it is larger than {MAX_BYTES >> 30} GiB when unpacked")
        return data


def decompressed(file: _Readable) -> _Readable:
    """The reader that the first bytes ask for. Reading raises one of :data:`DAMAGED`, Refused, or OSError."""
    magic = file.read(6)
    file = cast(IO[bytes], _Whole(magic, file))
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic.startswith(b"\xfd7zXZ"):
        return _Xz(file)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _Zstd(file)
    return file


class _Whole:
    """A file whose first bytes have been looked at, from its beginning."""

    def __init__(self, head: bytes, rest: _Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1) -> bytes:
        head, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        return head + self._rest.read(size if size < 0 else size - len(head)) if size != len(head) else head


class _Xz:
    """One xz stream. LZMAFile would do, but has no limit to the memory that an archive may ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=MAX_MEMORY)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and not self._decoder.eof:
            raw = self._file.read(_CHUNK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not raw:
                raise EOFError("it ends in the middle")
            data += self._decoder.decompress(raw, size - len(data))
        return data


class _Zstd:
    """A zstd file. The library's own limit to memory is 128 MiB."""

    def __init__(self, file: _Readable) -> None:
        try:
            module: Any = importlib.import_module("compression.zstd")
        except ImportError:  # Python before 3.14
            module = importlib.import_module("backports.zstd")
        self._file, self._error = module.ZstdFile(file), module.ZstdError

    def read(self, size: int) -> bytes:
        try:
            return cast(bytes, self._file.read(size))
        except self._error as error:
            raise ValueError(str(error)) from error
