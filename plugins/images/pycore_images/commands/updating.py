"""``pull --update``: an app's lock moved on to what its images' names mean now, and what differs said before."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pycore.cli.session import Session
from pycore.cli.text import size
from pycore.errors import NotFound, PycoreError, UsageError
from pycore.spec import App, Process, is_path

from pycore_images import documents, lock, reference
from pycore_images.commands.breaking import Break, breakable
from pycore_images.commands.naming import familiar, short_id
from pycore_images.commands.places import store_of
from pycore_images.comparing import differing, in_words
from pycore_images.content import Damaged
from pycore_images.reference import Reference

if TYPE_CHECKING:
    from pycore_images.registry.hosts import Hosts

_STYLES = {"+": "green", "-": "red", "~": "yellow"}


@dataclass(frozen=True)
class _Change:
    """One name, and what it leads to: by the lock until now, by its registry from now on."""

    name: Reference
    before: str
    """A digest; empty where nothing was locked."""
    old: documents.Image | None
    """None where it is neither here nor there any more."""
    new: documents.Image

    @property
    def moved(self) -> bool:
        return self.before != self.new.root.digest


def update(session: Session, arguments: argparse.Namespace) -> int:
    """Say what differs, and unless it is a dry run, fetch it and write the lock."""
    from pycore_images.commands.moving import pull

    app = session.engine.load(session.path(arguments.image), session.environment)
    if lock.path_of(app) is None:
        raise UsageError(f"{arguments.image} has no lock: that of app.toml is app.lock beside it")
    flags = [flag for flag, said in (("--quiet", arguments.quiet), ("--dry-run", arguments.dry_run)) if said]
    with breakable(session, ["pull", "--update", *flags, "--", arguments.image]) as cancel:
        locked = lock.read(app)
        changes = [_change(session, name, locked.get(str(name), ""), cancel) for name in _names(app)]
        if not arguments.quiet:
            _show(session, changes)
        if arguments.dry_run:
            return 0
        for change in changes:
            if change.moved or not _is_here(session, change.new):
                pull(session, change.name, cancel, pin=change.new.root.digest, quiet=arguments.quiet)
        lock.write(app, {str(change.name): change.new.root.digest for change in changes})
    return 0


def _names(app: App) -> list[Reference]:
    """Of the images whose names may come to mean something else."""
    words = dict.fromkeys(container[Process].image for container in app.containers.values())
    names = [reference.parse(word) for word in words if word != "host" and not is_path(word)]
    return [name for name in dict.fromkeys(names) if not name.digest]


def _change(session: Session, name: Reference, before: str, cancel: Break) -> _Change:
    from pycore_images.registry.hosts import read_hosts

    hosts = read_hosts(session.engine.data_dir)
    new = _look(session, name, hosts, cancel)
    if not before or before == new.root.digest:
        return _Change(name, before, None, new)
    store = store_of(session)
    try:
        root = store.by_digest(before)
        if root:
            return _Change(name, before, store.image(root), new)
    except (NotFound, Damaged):
        pass  # only a part of it is here: asked for where it came from
    try:
        return _Change(name, before, _look(session, name.pinned(before), hosts, cancel), new)
    except PycoreError:
        if cancel.is_set():
            raise
        return _Change(name, before, None, new)


def _look(session: Session, name: Reference, hosts: Hosts, cancel: Break) -> documents.Image:
    from pycore_images.fetching import look
    from pycore_images.registry.pull import RegistrySource

    with RegistrySource(name, hosts, session.environment, cancel=cancel) as source, cancel.ending(source.break_off):
        return look(source)


def _is_here(session: Session, image: documents.Image) -> bool:
    store = store_of(session)
    return store.has_blob(image.digest) and all(map(store.has_layer, image.config.diff_ids))


# -- what differs ----------------------------------------------------------------------------------------


def _show(session: Session, changes: list[_Change]) -> None:
    if session.json:
        for change in changes:
            session.print_json(_json(change), indent=None)
        return
    session.lines(None, lambda: "".join(f"{line}\n" for change in changes for line in _lines(change)), _STYLES)


def _json(change: _Change) -> dict[str, Any]:
    differ = differing(change.old, change.new) if change.old else {}
    return {
        "name": str(change.name),
        "moved": change.moved,
        "old": change.before or None,
        "new": change.new.root.digest,
        "old_size": change.old.size if change.old else None,
        "new_size": change.new.size,
        "config": {what: {"old": old, "new": new} for what, (old, new) in differ.items()},
    }


def _lines(change: _Change) -> Iterator[str]:
    name, new = familiar(str(change.name)), change.new
    if not change.moved:
        yield f"  {name} is at {short_id(change.before)} still"
    elif not change.before:
        yield f"+ {name} at {short_id(new.root.digest)}, {size(new.size)}"
    else:
        yield f"~ {name} from {short_id(change.before)} to {short_id(new.root.digest)}"
        if change.old is None:
            yield f"    size {size(new.size)}; what it was, is not to be had any more"
            return
        yield from _words(change.old, new)


def _words(old: documents.Image, new: documents.Image) -> Iterator[str]:
    difference = new.size - old.size
    more = f"{size(abs(difference))} {'more' if difference > 0 else 'less'}" if difference else "the same"
    shared = {layer.digest for layer in old.manifest.layers} & {layer.digest for layer in new.manifest.layers}
    yield f"    size {size(old.size)} -> {size(new.size)} ({more})"
    yield f"    layers {len(old.manifest.layers)} -> {len(new.manifest.layers)} ({len(shared)} of them the same)"
    for line in in_words(differing(old, new)):
        yield f"    {line}"
