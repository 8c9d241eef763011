"""What is not as it should be: what the host lacks, and where it is not as the records say; and its repair.

Looking changes nothing and needs no lock. A repair is done by the engine that holds it, thing by thing, each by
what the journal would do as well: an operation done again, or taken back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pycore.convergence.changes import finish
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.launch.idmap import root_id
from pycore.life.lifecycle import Lifecycle
from pycore.ops import Context, Operation
from pycore.plan import applied_identity
from pycore.records.state import ContainerRecord

SPAWNER = "pycore-spawner"
"""What a spawner's process is called (PR_SET_NAME)."""

Kind = Literal["missing", "undone", "left over", "damaged"]
"""The host lacks it; a container's operation is not in force; nobody has it any more; a record cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    what: str
    """A sentence."""
    mend: str = ""
    """What mends it, where a repair does not: a line to be pasted, or words."""
    why: str = ""
    """What does not work because of it."""
    plugin: str = ""
    """Whose requirement it is."""
    repair: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """Mends it. Raises OSError, PycoreError."""


@dataclass(frozen=True)
class Repair:
    """What became of a finding."""

    finding: Finding
    failure: str = ""
    """Why it could not be mended; empty where it was."""


def examine(engine: Engine) -> list[Finding]:
    """Everything that is found on this host and in the run dir and data dir. Changes nothing."""
    return [*missing(engine), *amiss(engine)]


def missing(engine: Engine) -> Iterator[Finding]:
    """What the plugins need of the host and do not find."""
    for plugin, needs in engine.plugins.requirements(engine.kernel).items():
        for need in needs:
            if not need.met:
                yield Finding("missing", need.what, need.mend, need.why, plugin)


def amiss(engine: Engine, life: Lifecycle | None = None) -> list[Finding]:
    """What is not as the records say, in the order in which it is to be mended.

    With ``life`` what is being put in order already is left out.
    """
    try:
        found = [*_damaged(engine)]
        for record in engine.state.containers():
            if not (life and _is_settling(life, record)):
                found += _of_container(engine, record)
        return [*found, *_entries(engine), *_left_over(engine)]
    except PycoreError as error:  # no power to read the directories, say
        return [Finding("damaged", error.message, error.hint or "")]


def _is_settling(life: Lifecycle, record: ContainerRecord) -> bool:
    """Whether a container has just ended: what was attached to it is being taken back at this moment."""
    live = life.live.get(record.id)
    return live is not None and live.exited.is_set()


def repair(engine: Engine) -> list[Repair]:
    """Mend what can be mended, one by one, while no container is made. Raises Conflict where this is not the engine.

    Two rounds: what is mended may show what stood behind it.
    """
    life = engine.open()
    done: dict[Finding, Repair] = {}
    for _ in range(2):
        with engine.undisturbed():
            for finding in amiss(engine, life):
                if finding not in done or done[finding].failure:
                    done[finding] = _mend(finding)
    for each in done.values():
        if not each.failure:
            life.events.emit("repair", finding=each.finding.what)
    return [*done.values()]


def _mend(finding: Finding) -> Repair:
    if finding.repair is None:
        return Repair(finding, finding.mend or "only a person can mend that")
    try:
        finding.repair()
    except OSError as error:
        place = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
        return Repair(finding, f"{error.strerror or error}{place}")
    except PycoreError as error:
        return Repair(finding, error.message)
    return Repair(finding)


# -- containers ----------------------------------------------------------------------------------------------


def _of_container(engine: Engine, record: ContainerRecord) -> Iterator[Finding]:
    try:
        if record.status == "removing":
            remove = partial(_remove, engine, record)
            yield Finding("left over", f"{record.full_name}: its removal did not come to its end", repair=remove)
        elif record.going or record.coming:
            words = f"{record.full_name}: a change of it did not come to its end"
            yield Finding("left over", words, repair=partial(_finish, engine, record))
        elif record.pid or record.status == "running":
            yield from _not_in_force(engine, record, ("prepared", "attached", "paused"))
        elif record.status != "creating":
            yield from _not_in_force(engine, record, ("prepared",))
            if record.attached:
                words = f"{record.full_name}: it has ended, and not all that was attached to it could be taken back"
                yield Finding("left over", words, repair=partial(_detach, engine, record))
    except PycoreError as error:  # the plugin that made it is not installed any more
        yield Finding("damaged", error.message, error.hint or "")


def _not_in_force(
    engine: Engine, record: ContainerRecord, parts: Iterable[Literal["prepared", "attached", "paused"]]
) -> Iterator[Finding]:
    attached = record.operations("attached")
    ctx = Context(engine.kernel, container=record.full_name, root_id=root_id(attached), pid=record.pid)
    for part in parts:
        for operation in record.operations(part):
            if _in_force(operation, ctx) is False:
                words = f"{record.full_name}: not in force: {operation.explain()}"
                yield Finding("undone", words, repair=partial(operation.do, ctx))


def _in_force(operation: Operation, ctx: Context) -> bool | None:
    try:
        return operation.probe(ctx)
    except OSError:  # it cannot be asked here
        return None


def _remove(engine: Engine, record: ContainerRecord) -> None:
    engine.open().remove(record)


def _finish(engine: Engine, record: ContainerRecord) -> None:
    finish(engine.open(), [record])


def _detach(engine: Engine, record: ContainerRecord) -> None:
    engine.open().detach(record)


# -- what nobody has -----------------------------------------------------------------------------------------


def _left_over(engine: Engine) -> Iterator[Finding]:
    """What plugins find; twice, since what a container that is just starting has made is known by the second time."""
    try:
        first = engine.plugins.leftovers(engine.host(), _known(engine))
        again = engine.plugins.leftovers(engine.host(), _known(engine)) if first else []
    except PycoreError:  # a journal cannot be read: that is told with its container
        return
    except OSError as error:
        yield Finding("damaged", f"what is left over cannot be told: {error}")
        return
    for operation in first:
        if operation in again:
            undo = partial(operation.undo, Context(engine.kernel))
            yield Finding("left over", f"no container has it any more: {operation.explain()}", repair=undo)


def _known(engine: Engine) -> list[Operation]:
    """The operations in all journals. Raises PycoreError where one cannot be read: then nothing is left over."""
    return [
        operation
        for record in engine.state.containers()
        for operation in (*record.operations("prepared"), *record.operations("attached"), *record.operations("paused"))
    ]


def _entries(engine: Engine) -> Iterator[Finding]:
    """Files and directories of the run dir and the data dir that belong to nothing."""
    state = engine.state
    records = {record.id for record in state.containers()}
    damaged = {path.parent.name for path, _ in state.damaged()}
    for name in _names(state.run_dir / "containers"):
        if name not in records | damaged:
            yield _nobodys(state.run_dir / "containers" / name)
    kept = records | damaged | _wanted(engine)
    for name in _names(state.data_dir / "containers"):
        if name not in kept:
            yield _nobodys(state.data_dir / "containers" / name)
    for name in _names(state.data_dir / "apps"):
        if name.endswith(".new"):
            yield _nobodys(state.data_dir / "apps" / name)
    for name in _names(state.run_dir / "spawners"):
        if _is_dead(name):
            yield _nobodys(state.run_dir / "spawners" / name)


def _wanted(engine: Engine) -> set[str]:
    """Ids of containers that applied apps have, or will have once they are brought back after a reboot."""
    instance = engine.host().instance
    return {applied_identity(app, name, instance) for app in engine.state.apps() for name in app.generations}


def _nobodys(path: Path) -> Finding:
    return Finding("left over", f"nothing knows {path}", repair=partial(_delete, path))


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_dead(socket: str) -> bool:
    """Whether the spawner of a socket PID.sock is no more. We do not knock: it would take us for its new master."""
    try:
        return Path(f"/proc/{socket.removesuffix('.sock')}/comm").read_text(encoding="utf-8").strip() != SPAWNER
    except (FileNotFoundError, ProcessLookupError):
        return True


def _damaged(engine: Engine) -> Iterator[Finding]:
    """Records that cannot be read. What they were of is found by what is left over, once they are gone."""
    for path, why in engine.state.damaged():
        yield Finding("damaged", f"{why}; a repair takes away what it was of", repair=partial(_delete, path))


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise PycoreError(f"cannot read {directory}: {error.strerror}", hint="run as root") from error
