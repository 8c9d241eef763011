"""Compressed streams, read as what they were before: whichever of the usual compressions their first bytes ask for.

Each reader gives its thread's turn away while it decompresses, so that others can digest or write meanwhile. All but
zstd is imported with this module: inside a container nothing can be imported any more.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
from typing import Any, Protocol, cast

from isal import igzip_lib

MAX_MEMORY = 256 << 20
"""Bytes that decompression may take; xz -9 takes 65 MiB (xz(1)), zstd --ultra 128 MiB (zstd(1))."""
_CHUNK = 1 << 18


class Readable(Protocol):
    """What can be read from its place on."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


class Unreadable(ValueError):
    """The data is not what its compression allows."""


def decompressed(file: Readable) -> Readable:
    """A reader of what is in a stream. It raises Unreadable for data that is not sound, also at its very end."""
    magic = b""
    while len(magic) < 6 and (more := file.read(6 - len(magic))):
        magic += more
    file = Plain(magic, file)
    if magic.startswith(b"\x1f\x8b"):
        return _Gzip(file)
    if magic.startswith(b"BZh"):
        return _Bzip(file)
    if magic.startswith(b"\xfd7zXZ"):
        return _Xz(file)
    if (magic[1:4] == b"\xb5\x2f\xfd" and magic[0] == 0x28) or (magic[1:4] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5):
        return _Zstd(file)
    return file


class Plain:
    """A stream that is not compressed: only its first bytes have been looked at."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._rest.read(size)


class _Frames:
    """A stream of compressed pieces, one after the other, each with a decoder of its own."""

    padding = False
    """Whether zeros may follow the last piece."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder: Any = None
        self._raw = b""
        self._begun = False

    def read(self, size: int, /) -> bytes:
        while True:
            if self._decoder is None and not self._begin():
                return b""
            data = self._decoded(size)
            if data:
                return data

    def _begin(self) -> bool:
        """A decoder for the next piece; none at the end of the stream."""
        self._raw = self._raw or self._file.read(_CHUNK)
        while self.padding and self._begun and self._raw and not self._raw.strip(b"\0"):
            self._raw = self._file.read(_CHUNK)
        if not self._raw:
            return False
        self._decoder, self._begun = self.decoder(), True
        return True

    def _decoded(self, size: int) -> bytes:
        """What the decoder makes of what is there; perhaps nothing yet."""
        try:
            data = self._decoder.decompress(self._raw, size)
        except Exception as error:
            raise Unreadable(str(error) or type(error).__name__) from error
        if self._decoder.eof:
            self._raw, self._decoder = self._decoder.unused_data, None
        elif not data or self._decoder.needs_input:
            self._raw = self._file.read(_CHUNK)
            if not self._raw:
                raise Unreadable("it ends in the middle")
        else:
            self._raw = b""
        return cast(bytes, data)

    def decoder(self) -> Any:
        """A decoder as those of bz2 and lzma."""
        raise NotImplementedError


class _Gzip(_Frames):
    padding = True

    def decoder(self) -> Any:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class _Bzip(_Frames):
    def decoder(self) -> Any:
        return bz2.BZ2Decompressor()


class _Xz(_Frames):
    padding = True

    def decoder(self) -> Any:
        return lzma.LZMADecompressor(memlimit=MAX_MEMORY)


class _Zstd(_Frames):
    def decoder(self) -> Any:
        try:
            zstd = zstandard()
        except ImportError:
            raise Unreadable("it is compressed with zstd, which is not read inside a container") from None
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})


def zstandard() -> Any:
    """The module of zstd: part of Python since 3.14."""
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
