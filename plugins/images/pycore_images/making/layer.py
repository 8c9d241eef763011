"""A new layer on its way into the store: digested, compressed, and kept aside until it is taken."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import os
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from pycore.linux.compression import Readable
from pycore.linux.packing import Packer
from pycore.linux.tarstream import MAX_BYTES

from pycore_images.archives.aside import aside
from pycore_images.archives.files import Segment
from pycore_images.content import Damaged
from pycore_images.store import Store

_CHUNK = 1 << 20
_LEVEL = 1
"""Of isal's three: the others take twice as long for a tenth less."""

Check = Callable[[], None]
"""Called between pieces; raises to break off."""


@dataclass(frozen=True)
class NewLayer:
    """A layer that lies in a file without a name, compressed with gzip."""

    fd: int
    digest: str
    size: int
    diff_id: str

    def read(self, offset: int = 0) -> Segment:
        """From a place on."""
        return Segment(self.fd, offset, self.size)


@contextlib.contextmanager
def packed(store: Store, tree: str, check: Check, *, layer: bool) -> Generator[NewLayer, None, None]:
    """Of a directory: a ``layer`` in overlayfs's words, or plain files. Raises OSError, PycoreError."""
    with _packing(tree, layer) as stream, taken(store, stream, check) as made:
        yield made


@contextlib.contextmanager
def taken(store: Store, stream: Readable, check: Check) -> Generator[NewLayer, None, None]:
    """Of a plain tar stream, read to its end. Raises OSError, Damaged for one that is beyond measure."""
    isal: Any = importlib.import_module("isal.isal_zlib")  # it is typed in part only
    compressor = isal.compressobj(_LEVEL, wbits=31)
    plain, compressed = hashlib.sha256(), hashlib.sha256()
    through = size = 0
    with aside(store) as file:

        def put(data: bytes) -> int:
            compressed.update(data)
            return file.write(data)

        while chunk := stream.read(_CHUNK):
            check()
            through += len(chunk)
            if through > MAX_BYTES:
                raise Damaged(f"a layer is larger than {MAX_BYTES >> 30} GiB")
            plain.update(chunk)
            size += put(compressor.compress(chunk))
        size += put(compressor.flush())
        yield NewLayer(file.fd, f"sha256:{compressed.hexdigest()}", size, f"sha256:{plain.hexdigest()}")


@contextlib.contextmanager
def _packing(tree: str, layer: bool) -> Generator[Readable, None, None]:
    """The stream of a tree, which is packed at the same time; what goes wrong there is raised at its end."""
    read, write = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _CHUNK)
    failed: list[BaseException] = []

    def pack() -> None:
        try:
            Packer(write, devices=True, layer=layer).pack_tree(tree)
        except BaseException as error:
            failed.append(error)
        finally:
            os.close(write)

    thread = threading.Thread(target=pack, name="pycore-packing", daemon=True)
    thread.start()
    try:
        yield _Pipe(read, failed)
    finally:
        os.close(read)  # whoever still writes is told by it
        thread.join()


class _Pipe:
    """A pipe that raises at its end what its writer failed with."""

    def __init__(self, fd: int, failed: list[BaseException]) -> None:
        self._fd, self._failed = fd, failed

    def read(self, size: int, /) -> bytes:
        data = os.read(self._fd, size)
        if not data and self._failed:
            raise self._failed[0]
        return data
