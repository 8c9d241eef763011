"""The verbs that name images and remove them: tag, rm, gc, prune."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.cli.text import size
from pycore.engine import Engine
from pycore.errors import Conflict, UsageError
from pycore.spec import parse_duration

from pycore_images import collecting, reference
from pycore_images.collecting import Collected, Reach
from pycore_images.commands.naming import Named, familiar, find
from pycore_images.commands.places import store_of
from pycore_images.commands.verbs import add, image_argument
from pycore_images.content import Damaged
from pycore_images.store import Store


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    add(verb, ("image tag", "tag"), _tag, "give an image one more name", _tag_arguments)
    add(verb, ("image rm", "rmi"), _rm, "remove an image, or a name of it", _rm_arguments)
    add(verb, ("image prune",), _prune, "remove images that have no name and no container", _prune_arguments)
    add(verb, ("image gc",), _gc, "remove what nobody has had a name for since yesterday", _gc_arguments)


def _tag_arguments(parser: argparse.ArgumentParser) -> None:
    image_argument(parser)
    parser.add_argument("name", metavar="NAME")


def _rm_arguments(parser: argparse.ArgumentParser) -> None:
    image_argument(parser, many=True)
    parser.add_argument(
        "-f", "--force", action="store_true",
        help="also a name that containers use, and all names of an id; what containers hold stays",
    )  # fmt: skip


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also images with names that no container uses")
    parser.add_argument("-f", "--force", action="store_true", help="as for Docker; pycore never asks back")


def _gc_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", metavar="TIME", type=_duration, default=collecting.DAY, help="how long it has lain here: 24h"
    )


def _duration(word: str) -> float:
    try:
        return parse_duration(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _tag(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    name = reference.parse(arguments.name)
    if name.digest:
        raise UsageError("a digest is not given, it is what an image has", hint=f"name it {name.name}:TAG")
    root = find(store, arguments.image).root
    store.tag(str(name), root)
    session.show({"name": str(name), "digest": root.digest}, lambda: "")
    return 0


# -- rm --------------------------------------------------------------------------------------------------


def _rm(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    removed = [_remove(session, store, find(store, word), arguments.force) for word in arguments.images]
    session.show([_json(*each) for each in removed], lambda: "".join(_text(*each) for each in removed))
    return 0


def _remove(session: Session, store: Store, named: Named, force: bool) -> tuple[Sequence[str], Collected]:
    """The names that went, and the content that went with the last one."""
    own = sorted(name for name, root in store.references().items() if root.digest == named.root.digest)
    names = [named.name] if named.name else own
    if len(names) > 1 and not force:
        shown = ", ".join(map(familiar, names))
        raise Conflict(f"image {named.shown} has several names: {shown}", hint="name one of them, or say -f for all")
    last = names == own
    if last and not force and (users := collecting.users(store, named.root)):
        hint = "-f removes its name; the files stay until those are removed"
        raise Conflict(f"image {named.shown} is used by {', '.join(_users(session, users))}", hint=hint)
    among = _content(store, named)
    store.untag_all(names)
    return names, collecting.collect(store, 0, among) if last else Collected()


def _content(store: Store, named: Named) -> Reach:
    """What the image consists of; of a damaged one the manifest alone, the rest of it is collected later."""
    try:
        return collecting.reach(store, [named.root.digest])
    except Damaged:
        return Reach({named.root.digest})


def _users(session: Session, users: Iterable[str]) -> list[str]:
    names = {record.id: record.full_name for record in session.engine.containers()}
    return sorted({names.get(user, "a command that is under way") for user in users})


# -- gc and prune ----------------------------------------------------------------------------------------


def _prune(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    names, collected = collecting.prune(store) if arguments.all else ([], collecting.collect(store, 0))
    return _say(session, names, collected)


def _gc(session: Session, arguments: argparse.Namespace) -> int:
    return _say(session, [], collecting.collect(store_of(session), arguments.older_than))


def _say(session: Session, names: Sequence[str], collected: Collected) -> int:
    total = f"reclaimed {size(collected.bytes)}\n"
    session.show(_json(names, collected), lambda: _text(names, collected) + total)
    return 0


def _json(names: Sequence[str], collected: Collected) -> dict[str, Any]:
    gone = {"blobs": collected.blobs, "layers": collected.layers, "bytes": collected.bytes}
    return {"untagged": names, "deleted": gone}


def _text(names: Sequence[str], collected: Collected) -> str:
    lines = [f"untagged: {familiar(name)}" for name in names]
    return "".join(f"{line}\n" for line in [*lines, *(f"deleted: {digest}" for digest in collected.blobs)])
