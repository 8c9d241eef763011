"""The verbs of ``volume``."""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from pycore.cli.parser import Verb
from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.cli.text import ago, size
from pycore.engine import Engine
from pycore.errors import Conflict, NotFound, PycoreError, UsageError
from pycore.plan import container_of

from pycore_storage.notation import parse_id, parse_volume
from pycore_storage.volumes import Mounts, name_of
from pycore_storage.volumestore import Stored, VolumeStore, checked


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    verb("volume", None, "volumes: data that outlives containers")
    create = verb("volume create", _create, "make an empty volume")
    create.add_argument("-l", "--label", metavar="KEY=VALUE", action="append", default=[], help="a word for people")
    create.add_argument("--uid", metavar="ID", default="0", help="the user whose it is; root unless said otherwise")
    create.add_argument("--gid", metavar="ID", default="0", help="the group whose it is")
    listing = verb("volume ls", _ls, "list volumes")
    listing.add_argument("-q", "--quiet", action="store_true", help="names only")
    listing.add_argument("--unused", action="store_true", help="only volumes that no container has")
    inspect = verb("volume inspect", _inspect, "tell all about volumes, and what they take on the disk")
    remove = verb("volume rm", _rm, "remove volumes, with their data")
    remove.add_argument("-f", "--force", action="store_true", help="one that is not there is fine")
    prune = verb("volume prune", _prune, "list the volumes that no container has; with --force, remove them")
    prune.add_argument("-f", "--force", action="store_true", help="remove them, with their data")
    backup = verb("volume backup", _backup, "write a volume as a tar stream")
    restore = verb("volume restore", _restore, "make a volume from a tar stream, which may be compressed")
    restore.add_argument("--replace", action="store_true", help="put it in the place of what the volume has now")
    snapshot = verb("volume snapshot", _snapshot, "make a new volume that is as another is now")
    for each in (create, backup, restore, snapshot):
        each.add_argument("name", metavar="NAME", help="NAME, or APP/NAME for a volume that is an app's own")
    for each in (inspect, remove):
        each.add_argument("names", metavar="NAME", nargs="+")
    backup.add_argument("file", metavar="FILE", nargs="?", default="-", help="standard output unless said otherwise")
    restore.add_argument("file", metavar="FILE", nargs="?", default="-", help="standard input unless said otherwise")
    snapshot.add_argument("new", metavar="NEW", help="the name of the new one")


def _store(session: Session) -> VolumeStore:
    return VolumeStore(session.engine.data_dir)


def users(engine: Engine, *, running: bool = False) -> Mapping[str, Sequence[str]]:
    """Names of volumes, and of the containers that have them; with ``running`` only of those that run."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record in engine.containers():
        if running and record.status != "running":
            continue
        container = container_of(record, engine.plugins)
        mounts = container[Mounts].volumes if Mounts in container else ()
        for name in {name_of(mount, container) for mount in map(parse_volume, mounts) if mount.named}:
            found[name].append(record.full_name)
    return found


def _refuse_used(name: str, by: Mapping[str, Sequence[str]]) -> None:
    if by.get(name):
        raise Conflict(f"volume {name} is used by {', '.join(sorted(by[name]))}", hint="remove or stop them first")


# -- looking ---------------------------------------------------------------------------------------------

_COLUMNS = (Column("VOLUME"), Column("CREATED", right=True), Column("USED BY", shrinks=True))


def _ls(session: Session, arguments: argparse.Namespace) -> int:
    by = users(session.engine)
    found = [each for each in _store(session).all() if not (arguments.unused and by.get(each.name))]
    if arguments.quiet:
        names = [each.name for each in found]
        session.show(names, lambda: "".join(f"{name}\n" for name in names))
        return 0
    rows = [_row(each, by) for each in found]

    def cells() -> list[tuple[Cell, ...]]:
        return [
            (Cell(each.name, "bold"), Cell(f"{ago(each.created)} ago"), Cell(", ".join(sorted(by.get(each.name, ())))))
            for each in found
        ]

    session.table(rows, _COLUMNS, cells)
    return 0


def _row(volume: Stored, by: Mapping[str, Sequence[str]]) -> dict[str, object]:
    return {
        "name": volume.name,
        "path": str(volume.path),
        "created": datetime.fromtimestamp(volume.created).astimezone().isoformat(timespec="seconds"),
        "labels": dict(volume.labels),
        "used_by": sorted(by.get(volume.name, ())),
    }


def _inspect(session: Session, arguments: argparse.Namespace) -> int:
    store, by = _store(session), users(session.engine)
    rows: list[dict[str, object]] = []
    for name in arguments.names:
        volume, usage = store.find(name), store.usage(name)
        rows.append(_row(volume, by) | {"bytes": usage.bytes, "inodes": usage.inodes})
    session.print_json(rows)
    return 0


# -- making and removing ---------------------------------------------------------------------------------


def _create(session: Session, arguments: argparse.Namespace) -> int:
    labels = dict(_label(text) for text in arguments.label)
    try:
        uid, gid = parse_id(arguments.uid), parse_id(arguments.gid)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _say(session, _store(session).create(arguments.name, labels, uid, gid))


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key:
        raise UsageError(f"{text!r} is no label", hint="--label KEY=VALUE")
    return key, value


def _say(session: Session, volume: Stored) -> int:
    session.show(_row(volume, {}), lambda: f"{volume.name}\n")
    return 0


def _rm(session: Session, arguments: argparse.Namespace) -> int:
    store = _store(session)
    for name in arguments.names:
        checked(name)
    removed: list[str] = []
    with store.alone():
        by = users(session.engine)
        for name in arguments.names:  # before any is removed
            _refuse_used(name, by)
            if not arguments.force:
                store.find(name)
        for name in dict.fromkeys(arguments.names):
            try:
                store.remove(name)
                removed.append(name)
            except NotFound:
                if not arguments.force:
                    raise
    session.show(removed, lambda: "".join(f"{name}\n" for name in removed))
    return 0


def _prune(session: Session, arguments: argparse.Namespace) -> int:
    store = _store(session)
    with store.alone():
        by = users(session.engine)
        unused = [each.name for each in store.all() if not by.get(each.name)]
        freed = sum(store.usage(name).bytes for name in unused)
        for name in unused if arguments.force else ():
            store.remove(name)
    what = {"removed" if arguments.force else "unused": unused, "bytes": freed}
    last = f"{size(freed)} freed" if arguments.force else f"{size(freed)}; nothing is removed without --force"
    session.show(what, lambda: "".join(f"{name}\n" for name in (*unused, last)))
    return 0


def _snapshot(session: Session, arguments: argparse.Namespace) -> int:
    return _say(session, _store(session).snapshot(arguments.name, arguments.new))


# -- out and in ------------------------------------------------------------------------------------------


def _backup(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.cli.streams import writing
    from pycore.linux.newfile import new_file

    store = _store(session)
    store.find(arguments.name)
    if arguments.file == "-":
        if os.isatty(session.stdio[1]):
            raise UsageError("a tar stream is nothing for a terminal", hint="pycore volume backup NAME FILE")
        with writing(session, session.stdio[1]) as out:
            left = store.backup(arguments.name, out)
    else:
        with new_file(str(session.path(arguments.file))) as file, writing(session, file) as out:
            left = store.backup(arguments.name, out)
    for each in left:
        session.err(f"{each}: a device or a socket: left out\n")
    return 0


def _restore(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.cli.streams import reading

    _refuse_used(checked(arguments.name), users(session.engine, running=True))
    store = _store(session)
    fd = session.stdio[0]
    if arguments.file != "-":
        fd = os.open(session.path(arguments.file), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    elif os.isatty(fd):
        raise UsageError("a terminal is no tar stream", hint="pycore volume restore NAME FILE")
    try:
        volume = store.restore(arguments.name, reading(session, fd), replace=arguments.replace)
    except OSError as error:
        raise PycoreError(f"volume {arguments.name}: {error.filename or arguments.file}: {error.strerror}") from error
    finally:
        if fd != session.stdio[0]:
            os.close(fd)
    return _say(session, volume)
