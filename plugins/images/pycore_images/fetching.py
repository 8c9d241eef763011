"""An image brought into the store from wherever it is: its documents, then its layers, several at once.

A layer is downloaded, digested, decompressed and unpacked at the same time. It comes to its place when it is what the
manifest and the configuration say, and on the disk; until then it lies in ``ingest``, from where a download that broke
off is gone on with, by whoever asks for the same layer next.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pycore.errors import NotFound, PycoreError
from pycore.linux import libc, rmtree

from pycore_images import collecting, documents
from pycore_images.archives.aside import write_all
from pycore_images.content import CONFIGS, MAX_DOCUMENT, Damaged, Descriptor, Progress, Source, quiet
from pycore_images.layers import Unpacking
from pycore_images.store import Store
from pycore_images.unpacker import Unpacker
from pycore_images.usage import measured, note_usage

_CHUNK = 1 << 20
_LARGE = 4 << 20
"""Bytes of a layer that is worth a process of its own, which takes a tenth of a second to begin."""
_TRIES = 5
"""How often a layer is asked for again without a byte more of it."""
_DELAY, _LONGEST = 0.5, 10.0
"""Seconds: before the first of them, and at most."""
_TOLD = 0.05
"""Seconds between two reports of how far a layer is."""
_PASSES = (ConnectionError, TimeoutError)
_UNSOUND = (
    errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY,
)  # fmt: skip
"""What the file system answers to an archive whose names and links cannot be."""


class Cancel(Protocol):
    """Breaks a fetch off when it is set: a :class:`threading.Event`, or what is like it."""

    def is_set(self) -> bool:
        """Whether it is."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is, or so many seconds; whether it is."""
        ...


def look(source: Source, platform: documents.Platform | None = None) -> documents.Image:
    """What an image is, without keeping anything: for a platform, where it is there for several; else for this host.

    Raises NotFound, Damaged, and what the source raises.
    """
    return _look(source, platform)[0]


def fetch(
    store: Store,
    source: Source,
    *,
    platform: documents.Platform | None = None,
    progress: Progress = quiet,
    cancel: Cancel | None = None,
    taken: Callable[[documents.Image], None] = lambda _image: None,
    jobs: int = 3,
) -> documents.Image:
    """Bring an image into the store, as far as it is not there; ``jobs`` layers at once.

    ``taken`` is called when all of it is there and nobody can have collected it yet: to give it a name.

    Raises PycoreError when it cannot be had or is broken off; what is whole of it by then stays for the next who asks,
    until it is collected. Raises Damaged for an image that is not sound, of which nothing stays. What ``progress``
    raises breaks it off, too.
    """
    image, found = _look(source, platform)
    try:
        with store.passing([image.root.digest, image.digest]):
            for data, descriptor in found:  # from what is held on: nobody who collects finds one that nothing leads to
                store.add_document(data, descriptor.media_type)
            _Fetch(store, source, progress, cancel or threading.Event()).layers(image, jobs)
            taken(image)
    except Damaged:
        _forget(store, image, found)
        raise
    return image


def _forget(store: Store, image: documents.Image, found: list[tuple[bytes, Descriptor]]) -> None:
    """Let go of what an image has brought, but for what others have, too."""
    blobs = {descriptor.digest for _, descriptor in found} | {layer.digest for layer, _ in image.layers}
    with contextlib.suppress(Damaged):  # something else is, and what others have cannot be known
        collecting.collect(store, 0, collecting.Reach(blobs, set(image.config.diff_ids)))


def _look(
    source: Source, platform: documents.Platform | None
) -> tuple[documents.Image, list[tuple[bytes, Descriptor]]]:
    """An image and its documents, the root first."""
    found: list[tuple[bytes, Descriptor]] = []

    def read(descriptor: Descriptor) -> bytes:
        data = _document(source, descriptor)
        found.append((data, descriptor))
        return data

    image = documents.image_of(source.root(), read, platform or documents.host_platform(), source.name)
    _check_platform(source, image, platform)
    return image, found


def _document(source: Source, descriptor: Descriptor) -> bytes:
    what = "the configuration" if descriptor.media_type in CONFIGS else "the manifest"
    if descriptor.size > MAX_DOCUMENT:
        raise Damaged(f"{what} of {source.name} is longer than {MAX_DOCUMENT} bytes")
    return documents.check_document(source.document(descriptor), descriptor, f"{what} of {source.name}")


def _check_platform(source: Source, image: documents.Image, platform: documents.Platform | None) -> None:
    """One that is there for one platform only is taken for what it is, unless another was asked for."""
    own = image.config.platform
    if platform and (own.os, own.architecture) != (platform.os, platform.architecture):
        raise NotFound(f"{source.name} is not there for {platform}", hint=f"there is {own}")


class _BrokenOff(PycoreError):
    """Nobody wants it any more."""


class _Fetch:
    """The layers of one image on their way."""

    def __init__(self, store: Store, source: Source, progress: Progress, cancel: Cancel) -> None:
        self.store, self.source, self.progress = store, source, progress
        self._cancel = cancel
        self._failed = threading.Event()
        self.hopeless = False
        """Whether a part of it is damaged: then nobody has a use for the rest."""
        self._disk = _Disk(store.root)

    def layers(self, image: documents.Image, jobs: int) -> None:
        """All that are not there. Raises the first error, when nothing of this goes on any more."""
        wanted = list(dict.fromkeys(image.layers))
        for layer, _ in wanted:
            self.progress(layer, "waiting", 0)
        wanted.sort(key=lambda pair: -pair[0].size)  # the longest takes longest
        with ThreadPoolExecutor(jobs, "pycore-fetch") as pool:
            try:
                running = [pool.submit(self._bring, layer, diff_id) for layer, diff_id in wanted]
                self._wait(running)
            except BaseException:
                self._failed.set()
                raise

    def _wait(self, running: list[Future[None]]) -> None:
        """Raises what came first, and not what came of it."""
        errors: list[BaseException] = []
        for done in as_completed(running):
            if (error := done.exception()) is not None:
                errors.append(error)
                self._failed.set()
        for error in sorted(errors, key=lambda error: isinstance(error, _BrokenOff)):
            raise error

    def check(self) -> None:
        """Raises PycoreError when nobody wants it any more."""
        if self._failed.is_set() or self._cancel.is_set():
            raise _BrokenOff("broken off")

    def _bring(self, layer: Descriptor, diff_id: str) -> None:
        """One layer, alone: whoever wants the same waits, and finds it."""
        self.check()
        with contextlib.ExitStack() as alone:
            for name in sorted(
                {layer.hex, diff_id.removeprefix("sha256:")}
            ):  # in an order, lest two wait for each other
                alone.enter_context(self.store.ingesting(name, self.check))
            has_layer, has_blob = self.store.has_layer(diff_id), self.store.has_blob(layer.digest)
            if has_layer and has_blob:
                self.progress(layer, "there", layer.size)
                return
            try:
                with _in_words(self.source.name, layer):
                    _Bringing(self, layer, diff_id, unpacks=not has_layer, downloads=not has_blob).bring()
            except Damaged:
                self.hopeless = True
                self._failed.set()
                raise
        self.progress(layer, "done", layer.size)

    def on_disk(self) -> None:
        """What has been written until now, is."""
        self._disk.reached()

    def pause(self, seconds: float) -> None:
        """Raises PycoreError as soon as it is broken off."""
        self._cancel.wait(seconds)
        self.check()


class _Bringing:
    """One layer on its way."""

    def __init__(self, fetch: _Fetch, layer: Descriptor, diff_id: str, *, unpacks: bool, downloads: bool) -> None:
        self._fetch, self._store = fetch, fetch.store
        self._layer, self._diff_id = layer, diff_id
        self._unpacks, self._downloads = unpacks, downloads
        self._part = self._store.ingest / f"{layer.hex}.part"
        self._told = 0.0

    def bring(self) -> None:
        """Raises OSError, PycoreError. A part is left where somebody can go on from it."""
        for old in self._store.ingest.glob(f"{self._diff_id.removeprefix('sha256:')}.*.tree"):
            rmtree.remove(str(old))  # of somebody who was killed: we are alone with it
        if not self._downloads:
            self._through(self._kept(self._store.open_blob(self._layer.digest)))
            return
        if self._unpacks and self._layer.digest == self._diff_id and self._fetch.source.at_hand:
            self._take_apart()
            if not self._downloads:
                return
        resumed = self._part.exists() and self._part.stat().st_size > 0
        try:
            self._download()
        except Damaged:
            if not resumed:
                raise
            self._download()  # what was there may be what is wrong

    def _download(self) -> None:
        fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size > self._layer.size:
                os.ftruncate(fd, 0)
            self._through(self._resumed(fd))
        except BaseException as error:
            if isinstance(error, Damaged | OSError) or self._fetch.hopeless:
                self._part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def _take_apart(self) -> None:
        """Unpack a plain archive, which is then kept as its files and a recipe, and not beside them; but for one whose
        recipe would not hold.
        """
        self._downloads = False
        self._through(self._coming(0), with_recipe=True)
        self._unpacks, self._downloads = False, not self._store.recipe(self._diff_id).exists()

    def _through(self, pieces: Generator[bytes, None, None], with_recipe: bool = False) -> None:
        """Unpack all of the layer, as far as that is wanted, and put what has been made in its place."""
        directory = self._store.ingest / f"{self._diff_id.removeprefix('sha256:')}.{secrets.token_hex(8)}.tree"
        digest = hashlib.sha256()
        try:
            with contextlib.ExitStack() as stack:
                unpacking = None
                if self._unpacks:
                    directory.mkdir()
                    recipe = directory / "recipe" if with_recipe else None
                    unpacking = stack.enter_context(self._unpacking(directory / "tree", recipe))
                for data in stack.enter_context(contextlib.closing(pieces)):
                    digest.update(data)
                    if unpacking:
                        unpacking.feed(data)
                found = f"sha256:{digest.hexdigest()}"
                if found != self._layer.digest:
                    raise Damaged("it is not what its digest says")
                if unpacking and unpacking.finish(found) != self._diff_id:
                    raise Damaged("it is not what the configuration says that it is when unpacked")
            self._fetch.check()
            self._reach_disk(directory)
            if self._unpacks:
                self._store.take_layer(directory, self._diff_id)
            if self._downloads:
                self._store.take_blob(self._part, self._layer.digest)
        except BaseException:
            if directory.exists():
                rmtree.remove(str(directory))
            raise

    def _unpacking(self, tree: Path, recipe: Path | None) -> AbstractContextManager[Unpacking | Unpacker]:
        return Unpacker(tree, recipe) if self._layer.size >= _LARGE else Unpacking(tree, recipe)

    def _reach_disk(self, directory: Path) -> None:
        """Wait for the disk, and meanwhile see what the layer takes, so that nobody has to walk through it later."""
        if not self._unpacks:
            self._fetch.on_disk()
            return
        with ThreadPoolExecutor(1, "pycore-measure") as pool:
            usage = pool.submit(measured, directory)
            self._fetch.on_disk()
        note_usage(directory, usage.result())

    def _kept(self, fd: int) -> Generator[bytes, None, None]:
        """All of a layer that is here, or of its beginning. The descriptor is closed in the end."""
        at = 0
        try:
            while data := os.read(fd, _CHUNK):
                self._tell("unpacking", at)
                yield data
                at += len(data)
        finally:
            os.close(fd)

    def _resumed(self, part: int) -> Generator[bytes, None, None]:
        """All of a layer, of which a part may be here; what comes is appended to that."""
        with contextlib.closing(self._kept(os.dup(part))) as kept:
            yield from kept
        with contextlib.closing(self._coming(os.fstat(part).st_size)) as pieces:
            for data in pieces:
                write_all(part, data)
                yield data

    def _coming(self, at: int) -> Generator[bytes, None, None]:
        """What the source gives from a place on, asked for again where it breaks off."""
        failed, size = 0, self._layer.size
        while at < size:
            try:
                with self._fetch.source.blob(self._layer, at) as stream:
                    while data := stream.read(_CHUNK):
                        at, failed = at + len(data), 0
                        if at > size:
                            raise Damaged(f"it is longer than the {size} bytes that it should have")
                        self._tell("downloading", at)
                        yield data
                if at < size:
                    raise ConnectionError(f"it ended after {at} of {size} bytes")
            except _PASSES as error:
                failed += 1
                if failed >= _TRIES:
                    raise PycoreError(f"it breaks off again and again: {error}") from error
                self._fetch.progress(self._layer, "retrying", at)
                self._fetch.pause(min(_DELAY * 2.0 ** (failed - 1), _LONGEST) * random.uniform(0.5, 1.0))

    def _tell(self, word: str, at: int) -> None:
        self._fetch.check()
        now = time.monotonic()
        if now - self._told >= _TOLD:
            self._told = now
            self._fetch.progress(self._layer, word, at)


class _Disk:
    """One syncfs(2) for all who wait for the disk at the same time, while others go on."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._changed = threading.Condition()
        self._begun = self._done = 0
        self._busy = False

    def reached(self) -> None:
        """Return when all that was written before is on the disk: when a sync has ended that began after now."""
        with self._changed:
            wanted = self._begun + 1
            while self._done < wanted:
                if self._busy:
                    self._changed.wait()
                else:
                    self._sync()

    def _sync(self) -> None:
        self._busy = True
        self._begun += 1
        mine = self._begun
        self._changed.release()
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                libc.syncfs(fd)
            finally:
                os.close(fd)
        finally:
            self._changed.acquire()
            self._busy = False
            self._changed.notify_all()
        self._done = mine


@contextlib.contextmanager
def _in_words(name: str, layer: Descriptor) -> Generator[None, None, None]:
    """What went wrong, and with which layer of what."""
    try:
        yield
    except PycoreError as error:
        if not error.message.startswith("it "):
            raise
        raise type(error)(f"layer {layer.digest[:19]} of {name}: {error.message}", hint=error.hint) from error
    except OSError as error:
        hint = (
            "make room: `pycore image prune`, `pycore image df`"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else None
        )
        kind = Damaged if error.errno in _UNSOUND else PycoreError
        raise kind(f"layer {layer.digest[:19]} of {name}: {error.strerror or error}", hint=hint) from error
