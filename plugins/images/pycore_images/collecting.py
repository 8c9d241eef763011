"""What goes from the store, and when.

What a name leads to stays, and so does what a container or whoever else holds. All other content goes when it has lain
there for a day; at once, where a person says so. What a name leads to is only removed by people.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pycore.errors import NotFound
from pycore.linux import rmtree

from pycore_images import documents
from pycore_images.content import INDEXES, MANIFESTS, MAX_DOCUMENT, Damaged, Descriptor
from pycore_images.store import Store, is_locked
from pycore_images.usage import usage_of

DAY = 24 * 3600.0
"""Seconds that content stays which nobody has a name for: it may be about to get one."""

_GONE = ".gone"
"""What ``ingest`` has under names that end so is only still to be removed."""


@dataclass
class Reach:
    """What names and users lead to."""

    blobs: set[str] = field(default_factory=set[str])
    """Digests."""
    layers: set[str] = field(default_factory=set[str])
    """Diff ids."""
    manifests: set[str] = field(default_factory=set[str])
    """Digests of those blobs that are manifests of images."""


@dataclass(frozen=True)
class Collected:
    """What went."""

    blobs: tuple[str, ...] = ()
    """Digests."""
    layers: tuple[str, ...] = ()
    """Diff ids."""
    bytes: int = 0
    """Of disk space."""


# -- what leads to what ----------------------------------------------------------------------------------


def reach(store: Store, digests: Iterable[str]) -> Reach:
    """What manifests and indexes lead to, as far as it is here. Raises Damaged where that cannot be known."""
    found, waiting = Reach(), list(digests)
    while waiting:
        digest = waiting.pop()
        if digest in found.blobs or not store.has_blob(digest):
            continue
        found.blobs.add(digest)
        document = documents.parse_root(store.blob(digest))
        if isinstance(document, documents.Index):
            waiting += [each.digest for each in document.manifests if each.media_type in MANIFESTS | INDEXES]
            continue
        found.manifests.add(digest)
        found.blobs |= {document.config.digest, *(layer.digest for layer in document.layers)}
        if store.has_blob(document.config.digest):
            found.layers.update(documents.parse_config(store.blob(document.config.digest)).diff_ids)
    return found


def unnamed(store: Store) -> list[Descriptor]:
    """Images that are here and have no name: manifests and indexes that neither a name nor an index leads to."""
    roots: dict[str, Descriptor] = {}
    within: set[str] = set()
    named: set[str] = set()
    for name in _names(store):
        with contextlib.suppress(Damaged):
            named |= reach(store, [name]).blobs
    for digest, size in _blobs(store):
        document = None if digest in named or size > MAX_DOCUMENT else _document(store, digest)
        if document is None:
            continue
        roots[digest] = document[0]
        if isinstance(document[1], documents.Index):
            within |= {each.digest for each in document[1].manifests}
    return [root for digest, root in sorted(roots.items()) if digest not in within]


def users(store: Store, root: Descriptor) -> list[str]:
    """Who holds an image, or one of those that an index has."""
    own = {root.digest}
    with contextlib.suppress(Damaged):
        own |= {descriptor.digest for descriptor, _ in store.documents_of(root)}
    return [user for user, digests in store.holds().items() if digests & own]


def _names(store: Store) -> set[str]:
    return {descriptor.digest for descriptor in store.references().values()}


def _held(store: Store) -> set[str]:
    return {digest for digests in store.holds().values() for digest in digests}


def _document(store: Store, digest: str) -> tuple[Descriptor, documents.Index | documents.Manifest] | None:
    """A blob that is a manifest or an index."""
    try:
        data = store.blob(digest) if _looks_like_json(store, digest) else b""
        document = documents.parse_root(data) if data else None
        return (Descriptor(documents.media_type_of(data), digest, len(data)), document) if document else None
    except (Damaged, NotFound):
        return None  # a configuration, a layer, or gone meanwhile


def _looks_like_json(store: Store, digest: str) -> bool:
    fd = store.open_blob(digest)
    try:
        return os.read(fd, 1) == b"{"
    finally:
        os.close(fd)


def _blobs(store: Store) -> Iterator[tuple[str, int]]:
    """Every blob's digest and length."""
    with contextlib.suppress(FileNotFoundError), os.scandir(store.root / "blobs" / "sha256") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield f"sha256:{entry.name}", entry.stat(follow_symlinks=False).st_size


# -- removing --------------------------------------------------------------------------------------------


def collect(store: Store, age: float = DAY, among: Reach | None = None) -> Collected:
    """Remove what no name and no user leads to, if it has been there for so many seconds; only content of ``among``,
    where that is given. Safe beside whoever uses the store. Raises Damaged, and then removes nothing.
    """
    if not (store.root / "oci-layout").exists():
        return Collected()
    with store.guard(exclusive=True):
        gone = _put_aside(store, age, among)
    return _removed(store, gone)


def prune(store: Store) -> tuple[list[str], Collected]:
    """Remove every image that nobody holds, whatever its names; (those names, what went)."""
    if not (store.root / "oci-layout").exists():
        return [], Collected()
    with store.guard(exclusive=True):
        held = reach(store, _held(store)).manifests
        names = [
            name
            for name, root in store.references().items()
            if held.isdisjoint(descriptor.digest for descriptor, _ in store.documents_of(root))
        ]
        store.untag_all(names)
        gone = _put_aside(store, 0, None)
    return names, _removed(store, gone)


@dataclass(frozen=True)
class _Gone:
    """What has been put aside, and where it is now."""

    blobs: dict[str, Path]
    layers: dict[str, Path]


def _put_aside(store: Store, age: float, among: Reach | None) -> _Gone:
    """Take content out of its place: a moment's work. The store is ours alone."""
    store.forget_the_dead()
    kept = reach(store, _names(store) | _held(store))
    before = time.time() - age
    blobs = _old(store.root / "blobs" / "sha256", kept.blobs, among.blobs if among else None, before)
    layers = _old(store.root / "layers", kept.layers, among.layers if among else None, before)
    return _Gone(
        {digest: _aside(store, store.blob_path(digest)) for digest in blobs},
        {diff_id: _aside(store, store.layer_tree(diff_id).parent) for diff_id in layers},
    )


def _aside(store: Store, place: Path) -> Path:
    aside = store.ingest / f"{secrets.token_hex(16)}{_GONE}"
    os.rename(place, aside)
    return aside


def _removed(store: Store, gone: _Gone) -> Collected:
    """Remove it, which may take long; others use the store meanwhile."""
    size = 0
    with store.sweeping():
        for place in gone.blobs.values():
            with contextlib.suppress(FileNotFoundError):  # somebody else has swept already
                size += os.stat(place).st_blocks * 512
        for place in gone.layers.values():
            with contextlib.suppress(FileNotFoundError):
                size += usage_of(place).bytes
        _sweep(store)
    return Collected(tuple(gone.blobs), tuple(gone.layers), size)


def _old(directory: Path, kept: Collection[str], among: Collection[str] | None, before: float) -> list[str]:
    found: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            digest = f"sha256:{entry.name}"
            if digest in kept or (among is not None and digest not in among):
                continue
            if entry.stat(follow_symlinks=False).st_mtime <= before:
                found.append(digest)
    return sorted(found)


def _sweep(store: Store) -> None:
    """Remove what was put aside, also by those who did not come to it, and what came in and was given up long ago."""
    for entry in list(os.scandir(store.ingest)):
        with contextlib.suppress(FileNotFoundError):  # what comes in may have come to its place meanwhile
            if entry.name.endswith(_GONE) or _given_up(store, entry):
                if entry.is_dir(follow_symlinks=False):
                    rmtree.remove(entry.path)
                else:
                    os.unlink(entry.path)


def _given_up(store: Store, entry: os.DirEntry[str]) -> bool:
    """Whether something that came in is of no use any more: whoever brought it is gone, and nobody went on for a day.

    A lock is never removed: somebody may just be about to take it.
    """
    if entry.name.endswith(".lock") or entry.stat(follow_symlinks=False).st_mtime > time.time() - DAY:
        return False
    return not is_locked(store.ingest / f"{entry.name.partition('.')[0]}.lock")
