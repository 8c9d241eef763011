"""The verbs load and save: images from files and into files."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.cli.streams import writing
from pycore.engine import Engine
from pycore.errors import UsageError

from pycore_images import documents
from pycore_images.commands.breaking import Break, breakable
from pycore_images.commands.moving import platform
from pycore_images.commands.naming import Named, familiar, find
from pycore_images.commands.places import store_of
from pycore_images.commands.progress import LOADED, SAVED, Layers
from pycore_images.commands.verbs import add, image_argument
from pycore_images.store import Store

if TYPE_CHECKING:
    from pycore_images.archives.found import Found
    from pycore_images.archives.writing import Writer

_FORMATS = ("docker-archive", "oci-archive", "oci-dir")


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    add(verb, ("image load", "load"), _load, "bring images here from an archive, or from a layout", _load_arguments)
    add(verb, ("image save", "save"), _save, "write images into an archive, or into a layout", _save_arguments)


def _load_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i", "--input", metavar="PATH", help="a file, or a directory with a layout; standard input otherwise"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print the names and nothing else")
    parser.add_argument("--platform", metavar="OS/ARCH", type=platform, help="for another platform than this host's")


def _save_arguments(parser: argparse.ArgumentParser) -> None:
    image_argument(parser, many=True)
    parser.add_argument("-o", "--output", metavar="PATH", help="where to; standard output otherwise")
    parser.add_argument(
        "--format", choices=_FORMATS, default=_FORMATS[0], help=f"{_FORMATS[0]}, which is a layout too, if not said"
    )
    parser.add_argument("--platform", metavar="OS/ARCH", type=platform, help="only the images for this platform")


# -- load ------------------------------------------------------------------------------------------------


def _load(session: Session, arguments: argparse.Namespace) -> int:
    words: list[str] = []
    if arguments.input:  # what comes in by a pipe cannot be begun anew
        flags = ["--quiet"] if arguments.quiet else []
        words = ["load", f"--input={arguments.input}", *flags]
        words += [f"--platform={arguments.platform}"] if arguments.platform else []
    elif os.isatty(session.stdio[0]):
        raise UsageError("an archive is not typed", hint="-i FILE, or `< FILE`")
    store = store_of(session)
    with breakable(session, words) as broken, _opened(session, store, arguments.input, broken) as images:
        for found in images:
            _load_one(session, store, found, arguments, broken)
    return 0


@contextlib.contextmanager
def _opened(session: Session, store: Store, path: str | None, broken: Break) -> Generator[Sequence[Found], None, None]:
    from pycore_images.archives.opening import opened, streamed

    if path:
        with opened(store, str(session.path(path)), broken.wait_for) as images:
            yield images
    else:
        with streamed(store, session.stdio[0], wait=broken.wait_for) as images:
            yield images


def _load_one(session: Session, store: Store, found: Found, arguments: argparse.Namespace, broken: Break) -> None:
    from pycore_images.fetching import fetch

    def name(image: documents.Image) -> None:
        for each in found.names:
            store.tag(each, image.root)

    with Layers(session, LOADED, arguments.quiet) as layers:
        image = fetch(
            store, found.source, platform=arguments.platform, progress=layers.progress, cancel=broken, taken=name
        )
    say_loaded(session, image, found.names)


def say_loaded(session: Session, image: documents.Image, names: Sequence[str]) -> None:
    """As Docker says it: by its names, else by its id."""
    if session.json:
        document = {"names": names, "digest": image.root.digest, "id": image.manifest.config.digest}
        session.print_json(document, indent=None)
        return
    shown = [f"loaded image: {familiar(name)}" for name in names]
    for line in shown or [f"loaded image id: {image.manifest.config.digest}"]:
        session.out(f"{line}\n")


# -- save ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """An image, and the names that it is to have in the archive."""

    named: Named
    names: Sequence[str]


def _save(session: Session, arguments: argparse.Namespace) -> int:
    if not arguments.output:
        if arguments.format == "oci-dir":
            raise UsageError("a directory is not written to standard output", hint="-o DIRECTORY")
        if os.isatty(session.stdio[1]):
            raise UsageError("an archive is nothing to be looked at", hint="-o FILE, or `> FILE`")
    store = store_of(session)
    wanted = _wanted([find(store, word) for word in arguments.images])
    quiet = not arguments.output  # the archive is what is printed
    with breakable(session) as broken, _target(session, arguments, broken) as writer:
        for each in wanted:
            _save_one(session, store, writer, each, arguments, broken, quiet)
        writer.finish()
    return 0


def _wanted(images: Sequence[Named]) -> list[_Wanted]:
    """Each image once, with all names under which it was asked for."""
    names: dict[str, list[str]] = {}
    for each in images:
        names.setdefault(each.root.digest, []).extend([each.name] if each.name else [])
    first = {each.root.digest: each for each in reversed(images)}
    return [_Wanted(first[digest], tuple(dict.fromkeys(found))) for digest, found in names.items()]


@contextlib.contextmanager
def _target(session: Session, arguments: argparse.Namespace, broken: Break) -> Generator[Writer, None, None]:
    from pycore_images.archives import targets
    from pycore_images.archives.writing import Writer

    docker = arguments.format == "docker-archive"
    if not arguments.output:
        with writing(broken, session.stdio[1]) as out, targets.tar_stream(out) as stream:
            yield Writer(stream, docker)
        return
    path = str(session.path(arguments.output))
    with targets.layout_directory(path) if arguments.format == "oci-dir" else targets.tar_file(path) as target:
        yield Writer(target, docker)


def _save_one(
    session: Session,
    store: Store,
    writer: Writer,
    wanted: _Wanted,
    arguments: argparse.Namespace,
    broken: Break,
    quiet: bool,
) -> None:
    from pycore_images.sending import send

    with Layers(session, SAVED, quiet) as layers:
        sink = writer.sink(wanted.names)
        sent = send(
            store, wanted.named.root, sink, platform=arguments.platform, progress=layers.progress, cancel=broken
        )
    if session.json and not quiet:
        session.print_json({"names": wanted.names, "digest": sent.digest, "status": "saved"}, indent=None)
