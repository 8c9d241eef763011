"""The verbs that look at images and change nothing: ls, inspect, history, df."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pycore.cli.names import has_label
from pycore.cli.parser import Verb
from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.cli.text import ago, short, size
from pycore.engine import Engine
from pycore.errors import NotFound, UsageError

from pycore_images import collecting, documents, reference
from pycore_images.commands import diskuse
from pycore_images.commands.naming import familiar, find, short_id
from pycore_images.commands.places import store_of
from pycore_images.commands.verbs import add, image_argument
from pycore_images.content import Damaged, Descriptor
from pycore_images.keeping import known
from pycore_images.store import Store
from pycore_images.usage import layer_usage

_NONE = "<none>"
_FILTERS = ("dangling", "label", "reference")


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them, and the group that all verbs for images are in."""
    verb("image", None, "images: what is here, where it comes from, and what it takes")
    add(verb, ("image ls", "images"), _ls, "list the images that are here", _ls_arguments)
    add(verb, ("image inspect",), _inspect, "tell all about images", lambda parser: image_argument(parser, many=True))
    add(
        verb,
        ("image history", "history"),
        _history,
        "say how an image was made, the last step first",
        _history_arguments,
    )
    add(verb, ("image df",), diskuse.df, "say what each image takes on the disk, and shares with others", _nothing)


def _nothing(parser: argparse.ArgumentParser) -> None:
    """It takes no words."""


def _ls_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="NAME", nargs="?", help="only images of this name")
    parser.add_argument("-a", "--all", action="store_true", help="as for Docker; nothing is left out anyway")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.add_argument("--digests", action="store_true", help="show digests")
    parser.add_argument("--no-trunc", action="store_true", help="cut nothing short")
    parser.add_argument(
        "-f", "--filter", metavar="KEY=VALUE", action="append", default=[],
        help=f"only images that fit: {', '.join(_FILTERS)}",
    )  # fmt: skip


def _history_arguments(parser: argparse.ArgumentParser) -> None:
    image_argument(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="ids only")
    parser.add_argument("--no-trunc", action="store_true", help="cut nothing short")


# -- ls --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    name: str
    root: Descriptor
    image: documents.Image | None
    """None for one that is damaged, or not whole."""
    bytes: int

    @property
    def repository(self) -> str:
        return familiar(self.name).partition("@")[0].removesuffix(f":{self.tag}") if self.name else _NONE

    @property
    def tag(self) -> str:
        return (self.name and reference.parse(self.name).tag) or _NONE

    @property
    def id(self) -> str:
        return self.image.manifest.config.digest if self.image else self.root.digest

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name or None,
            "repository": None if self.repository == _NONE else self.repository,
            "tag": None if self.tag == _NONE else self.tag,
            "digest": self.root.digest,
            "id": self.id,
            "created": self.image.config.created if self.image else None,
            "platform": str(self.image.config.platform) if self.image else None,
            "size": self.bytes,
            "content_size": self.image.size if self.image else None,
        }

    def cells(self, full: bool, digests: bool) -> Sequence[Cell]:
        created = _since(self.image.config.created) if self.image else "damaged"
        cells = [
            Cell(self.repository, "bold"), Cell(self.tag), Cell(self.root.digest),
            Cell(self.id if full else short_id(self.id)), Cell(created, "" if self.image else "red"),
            Cell(size(self.bytes)),
        ]  # fmt: skip
        return cells if digests else [*cells[:2], *cells[3:]]


_COLUMNS = (
    Column("REPOSITORY", shrinks=True), Column("TAG"), Column("DIGEST", shrinks=True), Column("IMAGE ID"),
    Column("CREATED", right=True), Column("SIZE", right=True),
)  # fmt: skip


def _ls(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    wanted = _Filter(arguments.filter, arguments.image)
    rows = [row for row in (_row(store, name, root) for name, root in known(store)) if wanted(row)]
    if arguments.quiet:
        ids = list(dict.fromkeys(row.id if arguments.no_trunc else short_id(row.id) for row in rows))
        session.show(ids, lambda: "".join(f"{each}\n" for each in ids))
        return 0
    columns = [column for column in _COLUMNS if arguments.digests or column.head != "DIGEST"]
    session.table(
        [row.to_json() for row in rows],
        columns,
        lambda: [row.cells(arguments.no_trunc, arguments.digests) for row in rows],
        plain=arguments.no_trunc,
    )
    return 0


def _row(store: Store, name: str, root: Descriptor) -> _Row:
    try:
        image = store.any_image(root)
    except (NotFound, Damaged):
        return _Row(name, root, None, 0)
    return _Row(name, root, image, _unpacked(store, image))


def _unpacked(store: Store, image: documents.Image) -> int:
    """Bytes of its layers that are here."""
    return sum(layer_usage(store, diff_id).bytes for diff_id in set(image.config.diff_ids))


class _Filter:
    """``--filter KEY=VALUE``, and a name: the same key again is another value that will do."""

    def __init__(self, words: Sequence[str], name: str | None) -> None:
        """Raises UsageError."""
        self._wanted: dict[str, list[str]] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or key not in _FILTERS:
                raise UsageError(f"--filter {word}: must be KEY=VALUE, with one of {', '.join(_FILTERS)}")
            self._wanted.setdefault(key, []).append(value)
        if name:
            self._wanted.setdefault("reference", []).append(name)

    def __call__(self, row: _Row) -> bool:
        return all(any(_fits(row, key, value) for value in values) for key, values in self._wanted.items())


def _fits(row: _Row, key: str, value: str) -> bool:
    if key == "dangling":
        return (not row.name) == (value in ("true", "1"))
    if key == "label":
        return row.image is not None and has_label(row.image.config.run.labels, value)
    names = (row.repository, f"{row.repository}:{row.tag}", row.name, row.name.rpartition(":")[0])
    return any(fnmatch.fnmatchcase(name, value) for name in names)


def _since(created: str) -> str:
    """How long ago, in words; nothing where it is not said: builds that are to be the same each time say year 1."""
    try:
        moment = datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError, OSError):
        return "-"
    return f"{ago(moment)} ago" if moment > 0 else "-"


# -- inspect ---------------------------------------------------------------------------------------------


def _inspect(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    session.print_json([_told(store, find(store, word).root) for word in arguments.images])
    return 0


def _told(store: Store, root: Descriptor) -> Mapping[str, Any]:
    """In Docker's words where it has some."""
    image = store.any_image(root)
    names = sorted(name for name, each in store.references().items() if each.digest == root.digest)
    repositories = dict.fromkeys(reference.parse(name).name for name in names)
    return {
        "Id": image.manifest.config.digest,
        "RepoTags": [familiar(name) for name in names if "@" not in name],
        "RepoDigests": [reference.parse(f"{name}@{root.digest}").familiar for name in repositories],
        "Created": image.config.created,
        "Author": image.config.author,
        "Os": image.config.platform.os,
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Size": _unpacked(store, image),
        "ContentSize": image.size,
        "Config": image.config.document.get("config") or {},
        "RootFS": {"Type": "layers", "Layers": image.config.diff_ids},
        "Digest": root.digest,
        "Manifest": {
            "Digest": image.digest,
            "MediaType": image.descriptor.media_type,
            "Annotations": image.manifest.annotations,
            "Layers": [documents.describe(layer) for layer in image.manifest.layers],
        },
        "Trees": [str(store.layer_tree(diff_id)) for diff_id in image.config.diff_ids],
        "UsedBy": collecting.users(store, root),
    }


# -- history ---------------------------------------------------------------------------------------------

_HISTORY = (
    Column("IMAGE"), Column("CREATED", right=True), Column("CREATED BY", shrinks=True), Column("SIZE", right=True),
    Column("COMMENT", shrinks=True),
)  # fmt: skip


def _history(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    image = store.any_image(find(store, arguments.image).root)
    steps = _steps(store, image)
    if arguments.quiet:
        ids = [step["id"] if arguments.no_trunc else short_id(step["id"]) for step in steps]
        session.show(ids, lambda: "".join(f"{each}\n" for each in ids))
        return 0
    full = arguments.no_trunc

    def rows() -> list[Sequence[Cell]]:
        return [
            (
                Cell(step["id"] if full else short_id(step["id"])), Cell(_since(step["created"])),
                Cell(step["created_by"] if full or session.terminal else short(step["created_by"], 45)),
                Cell("-" if step["size"] is None else size(step["size"])), Cell(step["comment"], "dim"),
            )
            for step in steps
        ]  # fmt: skip

    session.table(steps, _HISTORY, rows, plain=full)
    return 0


def _steps(store: Store, image: documents.Image) -> list[dict[str, Any]]:
    """The last one first. Only the whole has an id; sizes are known where as many steps as layers made one."""
    history = image.config.history or tuple(documents.Step() for _ in image.config.diff_ids)
    layers = iter(image.config.diff_ids)
    fitting = sum(not step.empty for step in history) == len(image.config.diff_ids)
    steps = [
        {
            "id": "<missing>",
            "created": step.created,
            "created_by": step.created_by,
            "author": step.author,
            "comment": step.comment,
            "size": 0 if step.empty else layer_usage(store, next(layers)).bytes if fitting else None,
        }
        for step in history
    ]
    if steps:
        steps[-1]["id"] = image.manifest.config.digest
    return steps[::-1]
