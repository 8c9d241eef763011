"""The verb ``image df``: what each image takes, and what it shares with others."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.cli.text import size
from pycore.errors import NotFound

from pycore_images.commands.naming import familiar, short_id
from pycore_images.commands.places import store_of
from pycore_images.content import Damaged, Descriptor
from pycore_images.keeping import images
from pycore_images.store import Store

_COLUMNS = (
    Column("IMAGE", shrinks=True), Column("IMAGE ID"), Column("SIZE", right=True), Column("SHARED", right=True),
    Column("UNIQUE", right=True), Column("USERS", right=True),
)  # fmt: skip


def df(session: Session, arguments: argparse.Namespace) -> int:
    """Unique is what goes with an image, if it is the only one that is removed."""
    store = store_of(session)
    kept = images(store)
    times = Counter(part for each in kept for part in each.sizes)
    rows: list[dict[str, Any]] = []
    for each in kept:
        total = sum(each.sizes.values())
        shared = sum(taken for part, taken in each.sizes.items() if times[part] > 1)
        rows.append(
            {
                "names": each.names,
                "digest": each.root.digest,
                "id": _id(store, each.root),
                "bytes": total,
                "shared": shared,
                "unique": total - shared,
                "users": each.users,
            }
        )
    session.table(rows, _COLUMNS, lambda: [_cells(row) for row in rows])
    return 0


def _cells(row: dict[str, Any]) -> Sequence[Cell]:
    return (
        Cell(", ".join(map(familiar, row["names"])) or "<none>", "bold"), Cell(short_id(row["id"])),
        Cell(size(row["bytes"])), Cell(size(row["shared"])), Cell(size(row["unique"])), Cell(str(len(row["users"]))),
    )  # fmt: skip


def _id(store: Store, root: Descriptor) -> str:
    try:
        return store.any_image(root).manifest.config.digest
    except (NotFound, Damaged):
        return root.digest
