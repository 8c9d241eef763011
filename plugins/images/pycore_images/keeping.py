"""The store of images as a part of the data dir: what it takes, and what goes from it when nobody asks for anything."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pycore.hookspecs import DiskUse, Host, hookimpl
from pycore.linux.measure import measure
from pycore.spec import Container

from pycore_images import collecting
from pycore_images.collecting import Reach
from pycore_images.content import Damaged, Descriptor
from pycore_images.registered import store_of
from pycore_images.store import Store
from pycore_images.usage import layer_usage


@hookimpl
def pycore_idle(host: Host) -> None:
    """Content that has had no name since yesterday goes; images with names stay, however long nobody uses them."""
    collecting.collect(store_of(host))


@hookimpl
def pycore_disk(host: Host, containers: Sequence[Container], running: Collection[str]) -> Iterable[DiskUse]:
    """All images, and what is left of others."""
    store = store_of(host)
    kept = images(store)
    used = {part: size for each in kept if each.users for part, size in each.sizes.items()}
    total = _whole(store)
    yield DiskUse(
        "images", len(kept), sum(bool(each.users) for each in kept), total, max(0, total - sum(used.values()))
    )


@dataclass(frozen=True)
class Kept:
    """An image, and what it takes."""

    names: tuple[str, ...]
    """References in full."""
    root: Descriptor
    users: tuple[str, ...]
    """Who holds it."""
    sizes: dict[str, int]
    """Bytes on the disk of each of its parts: of content by its digest, of layers by a word and their diff id."""


def known(store: Store) -> list[tuple[str, Descriptor]]:
    """Every name with what it leads to, and images without one under none."""
    return [*sorted(store.references().items()), *(("", root) for root in collecting.unnamed(store))]


def images(store: Store) -> list[Kept]:
    """Every image, once, whatever its names."""
    found: dict[str, tuple[Descriptor, list[str]]] = {}
    for name, root in known(store):
        found.setdefault(root.digest, (root, []))[1].extend([name] if name else [])
    return [
        Kept(tuple(names), root, tuple(collecting.users(store, root)), dict(_sizes(store, root)))
        for root, names in found.values()
    ]


def _sizes(store: Store, root: Descriptor) -> Iterator[tuple[str, int]]:
    try:
        reach = collecting.reach(store, [root.digest])
    except Damaged:
        reach = Reach({root.digest})
    for diff_id in reach.layers:
        yield f"layer {diff_id}", layer_usage(store, diff_id).bytes
    for digest in reach.blobs:
        with contextlib.suppress(FileNotFoundError):
            yield digest, store.blob_path(digest).stat().st_blocks * 512


def _whole(store: Store) -> int:
    """Bytes of all there is, whether an image leads to it or not; layers are known, and not walked through."""
    try:
        layers = [entry.name for entry in (store.root / "layers").iterdir()]
    except FileNotFoundError:
        return 0
    content = measure(str(store.root / "blobs")).bytes + measure(str(store.ingest)).bytes
    return content + sum(layer_usage(store, f"sha256:{name}").bytes for name in layers)
