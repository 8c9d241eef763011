"""The verbs pull and push."""

from __future__ import annotations

import argparse

from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.errors import NotFound, UsageError

from pycore_images import documents, reference
from pycore_images.commands.breaking import Break, breakable
from pycore_images.commands.naming import familiar, find
from pycore_images.commands.places import store_of
from pycore_images.commands.progress import PULLED, PUSHED, Layers
from pycore_images.commands.verbs import add
from pycore_images.content import Descriptor
from pycore_images.reference import Reference
from pycore_images.store import Store


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    add(verb, ("image pull", "pull"), _pull, "bring an image here from its registry", _pull_arguments)
    add(verb, ("image push", "push"), _push, "put an image into its registry", _push_arguments)


def _pull_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE|FILE")
    parser.add_argument("-a", "--all-tags", action="store_true", help="every tag that the registry has of it")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the name and nothing else")
    parser.add_argument("--platform", metavar="OS/ARCH", type=platform, help="for another platform than this host's")
    parser.add_argument(
        "--update", action="store_true",
        help="FILE is an app's: what its names mean now is said, pulled, and written into its lock",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="with --update: only say it")


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="NAME")
    parser.add_argument("-a", "--all-tags", action="store_true", help="every tag that is here of it")
    parser.add_argument("-q", "--quiet", action="store_true", help="print the name and nothing else")
    parser.add_argument("--platform", metavar="OS/ARCH", type=platform, help="only the image for this platform")


def platform(word: str) -> documents.Platform:
    """What ``--platform`` takes."""
    try:
        return documents.parse_platform(word)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _words(verb: str, arguments: argparse.Namespace) -> list[str]:
    """The command line again, for the next supervisor."""
    flags = {"--all-tags": arguments.all_tags, "--quiet": arguments.quiet}
    more = [f"--platform={arguments.platform}"] if arguments.platform else []
    return [verb, *(flag for flag, said in flags.items() if said), *more, "--", arguments.image]


# -- pull ------------------------------------------------------------------------------------------------


def _pull(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.update:
        from pycore_images.commands.updating import update

        return update(session, arguments)
    if arguments.dry_run:
        raise UsageError("--dry-run goes with --update")
    name = reference.parse(arguments.image)
    with breakable(session, _words("pull", arguments)) as cancel:
        for each in _tags(session, name, cancel) if arguments.all_tags else [name]:
            pull(session, each, cancel, platform=arguments.platform, quiet=arguments.quiet)
    return 0


def _tags(session: Session, name: Reference, cancel: Break) -> list[Reference]:
    from pycore_images.registry.hosts import read_hosts
    from pycore_images.registry.pull import RegistrySource

    hosts = read_hosts(session.engine.data_dir)
    with RegistrySource(name, hosts, session.environment, cancel=cancel) as source, cancel.ending(source.break_off):
        return [reference.parse(f"{name.name}:{tag}") for tag in source.tags()]


def pull(
    session: Session,
    name: Reference,
    cancel: Break,
    *,
    pin: str = "",
    platform: documents.Platform | None = None,
    quiet: bool = False,
) -> documents.Image:
    """Bring an image here, or what is new of it, and say so; the digest ``pin`` goes before what its tag says."""
    from pycore_images.fetching import fetch
    from pycore_images.registry.hosts import read_hosts
    from pycore_images.registry.pull import RegistrySource

    store, hosts = store_of(session), read_hosts(session.engine.data_dir)
    before = store.resolve(str(name))
    plain = not quiet and not session.json
    if plain:
        session.out(f"{name.version}: pulling from {name.repository}\n")
    asked = name.pinned(pin) if pin else name
    with (
        RegistrySource(asked, hosts, session.environment, cancel=cancel) as source,
        cancel.ending(source.break_off),
        Layers(session, PULLED, quiet) as layers,
    ):
        image = fetch(
            store, source, platform=platform, progress=layers.progress, cancel=cancel,
            taken=lambda image: store.tag(str(name), image.root),
        )  # fmt: skip
    status = "up to date" if before and before.digest == image.root.digest else "downloaded"
    if session.json:
        document = {"name": str(name), "digest": image.root.digest, "status": status, "size": image.size}
        session.print_json(document, indent=None)
    elif plain:
        known = {"up to date": "image is up to date for", "downloaded": "downloaded newer image for"}[status]
        session.out(f"digest: {image.root.digest}\nstatus: {known} {familiar(str(name))}\n")
    if not session.json:
        session.out(f"{name}\n")
    return image


# -- push ------------------------------------------------------------------------------------------------


def _push(session: Session, arguments: argparse.Namespace) -> int:
    store = store_of(session)
    name = reference.parse(arguments.image)
    if arguments.all_tags:
        roots = {reference.parse(each): root for each, root in store.references().items()}
        found = {each: root for each, root in roots.items() if each.name == name.name and each.tag}
        if not found:
            raise NotFound(f"there is no image of {name.name} here", hint="`pycore image ls` lists what is here")
    else:
        named = find(store, arguments.image)
        if not named.name:
            hint = f"pycore tag {arguments.image} REGISTRY/NAME:TAG"
            raise UsageError("an image is pushed to where its name says: name it", hint=hint)
        found = {reference.parse(named.name): named.root}
    with breakable(session, _words("push", arguments)) as cancel:
        for each, root in found.items():
            _push_one(session, store, each, root, arguments, cancel)
    return 0


def _push_one(
    session: Session,
    store: Store,
    name: Reference,
    root: Descriptor,
    arguments: argparse.Namespace,
    cancel: Break,
) -> None:
    from pycore_images.registry.hosts import read_hosts
    from pycore_images.registry.push import RegistrySink
    from pycore_images.sending import send

    hosts = read_hosts(session.engine.data_dir)
    neighbours = _neighbours(store, name, root)
    plain = not arguments.quiet and not session.json
    if plain:
        session.out(f"pushing to {name.name}\n")
    with (
        RegistrySink(name, hosts, session.environment, neighbours=neighbours, cancel=cancel) as sink,
        cancel.ending(sink.break_off),
        Layers(session, PUSHED, arguments.quiet) as layers,
    ):
        sent = send(store, root, sink, platform=arguments.platform, progress=layers.progress, cancel=cancel)
    if session.json:
        document = {"name": str(name), "digest": sent.digest, "status": "pushed", "size": sent.size}
        session.print_json(document, indent=None)
    elif plain:
        session.out(f"{name.version}: digest: {sent.digest} size: {sent.size}\n")
    else:
        session.out(f"{name}\n")


def _neighbours(store: Store, name: Reference, root: Descriptor) -> list[str]:
    """Repositories of the same registry that probably have layers of this image, since theirs are here."""
    own = _layers(store, root)
    others = ((reference.parse(each), other) for each, other in store.references().items())
    return [
        *dict.fromkeys(
            each.repository
            for each, other in others
            if each.registry == name.registry and each.repository != name.repository and own & _layers(store, other)
        )
    ]


def _layers(store: Store, root: Descriptor) -> set[str]:
    return {layer.digest for _, manifest in store.documents_of(root) for layer in manifest.layers}
