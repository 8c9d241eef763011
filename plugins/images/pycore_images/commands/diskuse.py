"""The verb df: what images, containers, volumes and the cache take on the disk, and what could be had back."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.cli.text import size
from pycore.errors import NotFound
from pycore.linux.measure import Usage, measure

from pycore_images import collecting
from pycore_images.collecting import Reach
from pycore_images.commands.naming import familiar, image_of, known, short_id
from pycore_images.commands.places import store_of
from pycore_images.content import Damaged, Descriptor
from pycore_images.store import Store
from pycore_images.usage import layer_usage


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("-v", "--verbose", action="store_true", help="each image, with what it shares with others")


def df(session: Session, arguments: argparse.Namespace) -> int:
    """Layers are known, the rest is walked through."""
    store = store_of(session)
    images = _images(store)
    if arguments.verbose:
        _show_images(session, images)
        return 0
    kinds = [_all_images(store, images), _containers(session), _volumes(session), _cache(session)]
    session.table([vars(kind) for kind in kinds], _COLUMNS, lambda: [_cells(kind) for kind in kinds])
    return 0


@dataclass(frozen=True)
class _Kind:
    type: str
    total: int
    active: int
    bytes: int
    reclaimable: int


_COLUMNS = (
    Column("TYPE"), Column("TOTAL", right=True), Column("ACTIVE", right=True), Column("SIZE", right=True),
    Column("RECLAIMABLE", right=True),
)  # fmt: skip


def _cells(kind: _Kind) -> Sequence[Cell]:
    share = f" ({kind.reclaimable * 100 // kind.bytes}%)" if kind.bytes else ""
    return (
        Cell(kind.type, "bold"), Cell(str(kind.total)), Cell(str(kind.active)), Cell(size(kind.bytes)),
        Cell(size(kind.reclaimable) + share),
    )  # fmt: skip


# -- images ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Image:
    names: tuple[str, ...]
    root: Descriptor
    reach: Reach
    users: tuple[str, ...]
    sizes: dict[str, int]
    """What each of its parts takes: blobs by digest, layers by diff id with a word before it."""


def _images(store: Store) -> list[_Image]:
    found: dict[str, tuple[Descriptor, list[str]]] = {}
    for name, root in known(store):
        found.setdefault(root.digest, (root, []))[1].append(name)
    return [_image(store, root, names) for root, names in found.values()]


def _image(store: Store, root: Descriptor, names: Iterable[str]) -> _Image:
    try:
        reach = collecting.reach(store, [root.digest])
    except Damaged:
        reach = Reach({root.digest})
    sizes = _sizes(store, reach)
    return _Image(tuple(name for name in names if name), root, reach, tuple(collecting.users(store, root)), sizes)


def _sizes(store: Store, reach: Reach) -> dict[str, int]:
    sizes = {f"layer {diff_id}": layer_usage(store, diff_id).bytes for diff_id in reach.layers}
    for digest in reach.blobs:
        try:
            sizes[digest] = store.blob_path(digest).stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return sizes


def _all_images(store: Store, images: Sequence[_Image]) -> _Kind:
    """All that the store has, also what no image leads to."""
    everything = {part: taken for image in images for part, taken in image.sizes.items()}
    used = {part: taken for image in images if image.users for part, taken in image.sizes.items()}
    total = max(measure(str(store.root / "blobs")).bytes + _layers(store), sum(everything.values()))
    return _Kind("images", len(images), sum(bool(image.users) for image in images), total, total - sum(used.values()))


def _layers(store: Store) -> int:
    try:
        names = [entry.name for entry in (store.root / "layers").iterdir()]
    except FileNotFoundError:
        return 0
    return sum(layer_usage(store, f"sha256:{name}").bytes for name in names)


_IMAGES = (
    Column("IMAGE", shrinks=True), Column("IMAGE ID"), Column("SIZE", right=True), Column("SHARED", right=True),
    Column("UNIQUE", right=True), Column("CONTAINERS", right=True),
)  # fmt: skip


def _show_images(session: Session, images: Sequence[_Image]) -> None:
    """Unique is what would go with an image, if it were the only one that is removed."""
    times = Counter(part for image in images for part in image.sizes)
    rows: list[dict[str, Any]] = []
    for image in images:
        total = sum(image.sizes.values())
        shared = sum(taken for part, taken in image.sizes.items() if times[part] > 1)
        rows.append(
            {
                "names": image.names,
                "digest": image.root.digest,
                "id": _id(store_of(session), image.root),
                "bytes": total,
                "shared": shared,
                "unique": total - shared,
                "users": image.users,
            }
        )

    def cells() -> list[Sequence[Cell]]:
        return [
            (
                Cell(", ".join(map(familiar, row["names"])) or "<none>", "bold"), Cell(short_id(row["id"])),
                Cell(size(row["bytes"])), Cell(size(row["shared"])), Cell(size(row["unique"])),
                Cell(str(len(row["users"]))),
            )
            for row in rows
        ]  # fmt: skip

    session.table(rows, _IMAGES, cells)


def _id(store: Store, root: Descriptor) -> str:
    try:
        return image_of(store, root).manifest.config.digest
    except (NotFound, Damaged):
        return root.digest


# -- the rest --------------------------------------------------------------------------------------------


def _containers(session: Session) -> _Kind:
    """What each keeps in the data dir: its writable layer and its log. Of one that does not run it can be had back."""
    records = session.engine.containers()
    taken = {record.id: measure(str(session.engine.data_dir / "containers" / record.id)).bytes for record in records}
    active = [record.id for record in records if record.status == "running"]
    total = sum(taken.values())
    return _Kind("containers", len(records), len(active), total, total - sum(taken[each] for each in active))


def _volumes(session: Session) -> _Kind:
    names = _names(session, "volumes")
    total = sum(measure(str(session.engine.data_dir / "volumes" / name)).bytes for name in names)
    return _Kind("volumes", len(names), 0, total, 0)


def _cache(session: Session) -> _Kind:
    usage: Usage = measure(str(session.engine.data_dir / "cache"))
    return _Kind("cache", usage.inodes, 0, usage.bytes, usage.bytes)


def _names(session: Session, directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in (session.engine.data_dir / directory).iterdir())
    except FileNotFoundError:
        return []
