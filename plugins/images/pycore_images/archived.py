"""Images that are files of this host: archives of images, and plain tars of a root file system.

An archive is taken into the store when it is first used. Its name there is its path, with a note of which state of the
file it was: a file that has changed is another image.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pycore.errors import NotFound, Problem, PycoreError
from pycore.hookspecs import Found, Host, hookimpl
from pycore.ops import Context, Operation
from pycore.spec import Container, Process, is_path
from pycore.steps import Step

from pycore_images.registered import fetched, is_complete, runnable, store_of
from pycore_images.store import Store

if TYPE_CHECKING:
    from pycore_images import documents
    from pycore_images.content import Descriptor, Source

STAMP = "io.pycore.stamp"
"""The annotation of a name that is a path: which state of the file it was."""


@dataclass(frozen=True)
class LoadedArchive(Operation):
    """Take an archive into the store, under its path."""

    step = Step.IMAGE
    store: str
    path: str
    stamp: str

    def do(self, ctx: Context) -> None:
        store = Store(Path(self.store))
        with _source(store, self.path) as source:
            fetched(store, source, ctx, lambda image: store.tag(self.path, _stamped(image.root, self.stamp)))

    def explain(self) -> str:
        return f"load {self.path}"


@hookimpl
def pycore_image(container: Container, host: Host) -> Found | None:
    """A path that is no directory."""
    words = container[Process].image
    if not is_path(words):
        return None
    path = host.look.real(posixpath.join(str(container.app.directory), words))
    if not host.look.exists(path) or host.look.is_dir(path):
        return None
    stamp = host.look.stamp(path)
    store = store_of(host)
    try:
        image = _loaded(store, path, stamp)
        fetch = None
        if image is None:
            image, fetch = _look(path), LoadedArchive(str(store.root), path, stamp)
    except PycoreError as error:
        host.problems.append(Problem(("image",), error.message, hint=error.hint))
        return None
    except OSError as error:
        host.problems.append(Problem(("image",), f"{path}: {error.strerror}"))
        return None
    return Found(runnable(store, path, image), fetch)


def _loaded(store: Store, path: str, stamp: str) -> documents.Image | None:
    """What the file was taken as before, where it has not changed since."""
    known = store.resolve(path)
    if known is None or known.annotations.get(STAMP) != stamp:
        return None
    with contextlib.suppress(NotFound):
        image = store.image(known)
        return image if is_complete(store, image) else None
    return None


def _look(path: str) -> documents.Image:
    """What a file is as an image. Nothing is kept: what has to be decompressed for it, is aside for that long."""
    from pycore_images.fetching import look

    with tempfile.TemporaryDirectory(prefix="pycore-") as scratch, _source(Store(Path(scratch)), path) as source:
        return look(source)


@contextlib.contextmanager
def _source(store: Store, path: str) -> Generator[Source, None, None]:
    """The one image of an archive. Raises PycoreError where there are several, OSError."""
    from pycore_images.archives.opening import opened

    with contextlib.ExitStack() as stack:
        try:
            images = stack.enter_context(opened(store, path))
        except NotFound:
            yield stack.enter_context(_plain(store, path))
            return
        if len(images) != 1:
            names = ", ".join(name for found in images for name in found.names)
            hint = f"pycore load -i {path}, then name one: {names}"
            raise PycoreError(f"{path} has {len(images)} images in it", hint=hint)
        yield images[0].source


@contextlib.contextmanager
def _plain(store: Store, path: str) -> Generator[Source, None, None]:
    """A tar of a root file system, as an image that says nothing of running it."""
    from pycore.linux.compression import Unreadable, decompressed

    from pycore_images.content import Damaged
    from pycore_images.making.image import MadeSource, Making
    from pycore_images.making.layer import taken

    with open(path, "rb") as file:
        created = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        making = Making(created=created, created_by=f"tar {posixpath.basename(path)}")
        try:
            with taken(store, decompressed(file), making.check) as layer:
                yield MadeSource(store, making, layer, {})
        except Unreadable as error:
            raise Damaged(f"{path} is damaged, or no tar file: {error}") from error


def _stamped(root: Descriptor, stamp: str) -> Descriptor:
    return replace(root, annotations={**root.annotations, STAMP: stamp})
