"""The verbs that make images of what is here, and what is here of images: commit, import, export, image diff."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Generator

from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.cli.streams import writing
from pycore.engine import Engine
from pycore.errors import UsageError
from pycore.spec import Process

from pycore_images import documents, reference
from pycore_images.commands.breaking import Break, breakable
from pycore_images.commands.moving import platform
from pycore_images.commands.naming import find
from pycore_images.commands.places import store_of
from pycore_images.commands.verbs import add
from pycore_images.store import Store

_STYLES = {"A": "green", "C": "yellow", "D": "red", "~": "yellow"}


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    add(verb, ("image commit", "commit"), _commit, "make an image of what a container has become", _commit_arguments)
    add(verb, ("image import", "import"), _import, "make an image of a tar or a directory", _import_arguments)
    add(verb, ("image export", "export"), _export, "write a container's files as a tar", _export_arguments)
    add(verb, ("image diff",), _diff, "say what is different between two images", _diff_arguments)


def _commit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("name", metavar="NAME", nargs="?", help="what the image is to be called")
    parser.add_argument("-a", "--author", metavar="AUTHOR", default="", help="who has made it")
    parser.add_argument(
        "-p", "--pause", action=argparse.BooleanOptionalAction, default=True, help="hold the container still meanwhile"
    )
    _change_arguments(parser)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FILE|DIRECTORY|-", help="a tar, perhaps compressed, - for standard input")
    parser.add_argument("name", metavar="NAME", nargs="?", help="what the image is to be called")
    parser.add_argument("--platform", metavar="OS/ARCH", type=platform, help="what it runs on: this host's unless said")
    _change_arguments(parser)


def _change_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="a word for its history")
    parser.add_argument(
        "-c", "--change", metavar="INSTRUCTION", action="append", default=[],
        help='what it says of itself, as a Dockerfile does: CMD ["/bin/app"], ENV A=b, USER, WORKDIR, ...',
    )  # fmt: skip


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to; standard output otherwise")


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")


# -- making ----------------------------------------------------------------------------------------------


def _commit(session: Session, arguments: argparse.Namespace) -> int:
    from pycore_images.making.committing import commit
    from pycore_images.making.image import Making

    name = _name(arguments.name)
    store, engine = store_of(session), session.engine
    container, snapshot = engine.snapshot(engine.find(arguments.container))
    root = store.by_digest(container.image.digest) if container.image.digest else None
    with breakable(session) as broken, _held(session, arguments):
        making = Making(
            base=store.image(root) if root else None,
            created_by=" ".join(container[Process].command) or "pycore commit",
            message=arguments.message,
            author=arguments.author,
            cancel=broken,
            taken=_naming(store, name),
        )
        image = commit(store, container, snapshot, making, arguments.change)
        return _say(session, image, name)


@contextlib.contextmanager
def _held(session: Session, arguments: argparse.Namespace) -> Generator[None, None, None]:
    """A container that runs is held still, unless it is already, or is not to be."""
    record = session.engine.find(arguments.container)
    if record.status != "running" or record.paused or not arguments.pause:
        yield
        return
    session.engine.pause(record.id)
    try:
        yield
    finally:
        session.engine.unpause(record.id)


def _import(session: Session, arguments: argparse.Namespace) -> int:
    from pycore_images.making.image import Making
    from pycore_images.making.importing import import_directory, import_stream

    name, path = _name(arguments.name), str(session.path(arguments.path))
    store = store_of(session)
    with breakable(session) as broken:
        making = Making(
            platform=arguments.platform,
            created_by=f"pycore import {arguments.path}",
            message=arguments.message,
            cancel=broken,
            taken=_naming(store, name),
        )
        if arguments.path != "-" and os.path.isdir(path):
            image = import_directory(store, path, making, arguments.change)
        else:
            with _opened(session, arguments.path) as fd:
                image = import_stream(store, fd, arguments.path, making, arguments.change, broken.wait_for)
        return _say(session, image, name)


@contextlib.contextmanager
def _opened(session: Session, path: str) -> Generator[int, None, None]:
    if path == "-":
        if os.isatty(session.stdio[0]):
            raise UsageError("an archive is not typed", hint="FILE, or `< FILE`")
        yield session.stdio[0]
        return
    with session.path(path).open("rb") as file:
        yield file.fileno()


def _name(word: str | None) -> str:
    """In full; empty where none is given."""
    if not word:
        return ""
    name = reference.parse(word)
    if name.digest:
        raise UsageError("a digest is not given, it is what an image has", hint=f"name it {name.name}:TAG")
    return str(name)


def _naming(store: Store, name: str) -> Callable[[documents.Image], None]:
    def taken(image: documents.Image) -> None:
        if name:
            store.tag(name, image.root)

    return taken


def _say(session: Session, image: documents.Image, name: str) -> int:
    """Docker says the id."""
    identity = image.manifest.config.digest
    session.show({"name": name or None, "digest": image.root.digest, "id": identity}, lambda: f"{identity}\n")
    return 0


# -- export ----------------------------------------------------------------------------------------------


def _export(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.linux.packing import Packer

    if not arguments.output and os.isatty(session.stdio[1]):
        raise UsageError("an archive is nothing to be looked at", hint="-o FILE, or `> FILE`")
    _, snapshot = session.engine.snapshot(session.engine.find(arguments.container))
    with breakable(session) as broken, snapshot.view() as tree, _target(session, arguments.output, broken) as fd:
        left = Packer(fd, devices=True).pack_tree(tree)
    for each in left:
        session.err(f"{each}: a socket: left out\n")
    return 0


@contextlib.contextmanager
def _target(session: Session, path: str | None, broken: Break) -> Generator[int, None, None]:
    from pycore.linux.newfile import new_file

    if not path:
        with writing(broken, session.stdio[1]) as out:
            yield out
        return
    with new_file(str(session.path(path))) as file, writing(broken, file) as out:
        yield out


# -- diff ------------------------------------------------------------------------------------------------


def _diff(session: Session, arguments: argparse.Namespace) -> int:
    from pycore_images.comparing import differing, differing_files, in_words

    store = store_of(session)
    old, new = (store.any_image(find(store, word).root) for word in (arguments.old, arguments.new))
    config, files = differing(old, new), differing_files(store, old, new)
    told = {
        "config": {what: {"old": before, "new": after} for what, (before, after) in config.items()},
        "files": [{"path": each.path, "kind": each.kind} for each in files],
    }

    def text() -> str:
        lines = [*(f"~ {line}" for line in in_words(config)), *(f"{each.kind} {each.path}" for each in files)]
        return "".join(f"{line}\n" for line in lines)

    session.lines(told, text, _STYLES)
    return 0
