"""Putting an image of the store into a sink: its content first, several at once where the sink takes that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial

from pycore.errors import NotFound, PycoreError

from pycore_images import documents
from pycore_images.content import Descriptor, Progress, Sink, quiet
from pycore_images.store import Store

_PIECE = 1 << 20


def send(
    store: Store,
    root: Descriptor,
    sink: Sink,
    *,
    platform: documents.Platform | None = None,
    progress: Progress = quiet,
    cancel: threading.Event | None = None,
    jobs: int = 3,
) -> Descriptor:
    """Send an image; what it is under there: an index goes whole where all of it is here and no platform is asked for,
    else the manifest for the platform, or the first that is here. Raises NotFound, PycoreError, OSError.
    """
    with store.passing([root.digest]):
        root, found = _chosen(store, root, platform)
        sending = _Sending(store, sink, progress, cancel or threading.Event())
        manifests = [each for _, each in found if isinstance(each, documents.Manifest)]
        contents = {each.digest: each for manifest in manifests for each in (*manifest.layers, manifest.config)}
        sending.all([*contents.values()], jobs if sink.parallel else 1)
        sending.all([each for each, _ in found if each.digest != root.digest], 1)
        sink.finish(root, store.blob(root.digest))
        return root


def _chosen(
    store: Store, root: Descriptor, platform: documents.Platform | None
) -> tuple[Descriptor, Sequence[tuple[Descriptor, documents.Manifest | documents.Index]]]:
    """What is sent, and the manifests and indexes that it leads to: those first that others lead to."""
    if platform is None:
        found = [*store.walk(root)]
        there = [(each, document) for each, document in found if document and _is_here(store, document)]
        if len(there) == len(found):
            return root, there
    image = store.image(root, platform) if platform else store.any_image(root)
    return image.descriptor, [(image.descriptor, image.manifest)]


def _is_here(store: Store, found: documents.Manifest | documents.Index) -> bool:
    """Whether there is all that it consists of: a pull for one more platform may have been broken off."""
    parts = (found.config, *found.layers) if isinstance(found, documents.Manifest) else ()
    return all(store.has_blob(each.digest) for each in parts)


class _Sending:
    """Contents on their way; when one fails, the others are given up."""

    def __init__(self, store: Store, sink: Sink, progress: Progress, cancel: threading.Event) -> None:
        self._store, self._sink, self._progress, self._cancel = store, sink, progress, cancel
        self._failed = False

    def all(self, contents: Sequence[Descriptor], jobs: int) -> None:
        """Each content that is not there yet."""
        with ThreadPoolExecutor(jobs, thread_name_prefix="pycore-sending") as pool:
            futures = [pool.submit(self._one, content) for content in contents]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:
                self._failed = True
                raise
            for future in done:
                if error := future.exception():
                    self._failed = True
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise error

    def _one(self, content: Descriptor) -> None:
        tell = partial(self._progress, content)
        tell("waiting", 0)
        self._check()
        if self._sink.has(content):
            tell("there", content.size)
            return
        stream = _Counted(self._opened(content), tell, self._check)
        try:
            self._sink.put(content, stream)
        finally:
            stream.close()
        tell("done", content.size)

    def _opened(self, content: Descriptor) -> int:
        try:
            return self._store.open_blob(content.digest)
        except NotFound as error:
            error.hint = "pull or load the image anew: a part of it is here unpacked only"
            raise

    def _check(self) -> None:
        if self._failed or self._cancel.is_set():
            raise PycoreError("broken off")


class _Counted:
    """A file of the store, read from its beginning, that tells how far it is. Who has lost what came can go back."""

    def __init__(self, fd: int, tell: Callable[[str, int], None], check: Callable[[], None]) -> None:
        self._fd, self._tell, self._check, self._through = fd, tell, check, 0

    def read(self, size: int, /) -> bytes:
        self._check()
        data = os.pread(self._fd, min(size, _PIECE), self._through)
        self._through += len(data)
        self._tell("sending", self._through)
        return data

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._through

    def seek(self, offset: int, /) -> int:
        self._through = offset
        return offset

    def close(self) -> None:
        os.close(self._fd)
