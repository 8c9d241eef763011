"""Live changes: a container's operations before against those after, over several containers at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pycore.errors import PycoreError, noted
from pycore.launch.idmap import root_id
from pycore.life.lifecycle import Lifecycle
from pycore.ops import Context, Operation, Record, to_records
from pycore.plan import Action, difference, source_of
from pycore.records.state import ContainerRecord
from pycore.steps import Phase


def change(life: Lifecycle, actions: Sequence[Action]) -> Callable[[], None]:
    """Bring the host side of containers to their changed specs: undo all that went, then do all that came.

    In this order over all of them, so that what one lets go of (a port) another can have. For a running
    container it is a live change. Returns the way back; on failure it has been gone.
    """
    swaps = [_swap(life, action) for action in actions]
    put_back = partial(_exchange, life, [swap.reversed() for swap in swaps])
    try:
        _exchange(life, swaps)
    except BaseException as error:
        with noted(error):
            put_back()
        raise
    return put_back


@dataclass(frozen=True)
class _Journal:
    """The part of a record that a change changes."""

    source: Mapping[str, object]
    prepared: tuple[Record, ...]
    attached: tuple[Record, ...] | None
    """None where no process is: then it holds what the end of the last could not take back, and stays as it is."""


@dataclass(frozen=True)
class _Swap:
    """A change of one container: operations against others, one journal against another."""

    record: ContainerRecord
    ctx: Context
    gone: tuple[Operation, ...]
    came: tuple[Operation, ...]
    was: _Journal
    wanted: _Journal

    def reversed(self) -> _Swap:
        """The way back."""
        return _Swap(self.record, self.ctx, self.came, self.gone, self.wanted, self.was)


def _swap(life: Lifecycle, action: Action) -> _Swap:
    assert action.new
    assert action.old
    record = life.current(action.old)
    running = life.runs(record)
    after = action.description
    was = _Journal(record.source, record.prepared, record.attached if running else None)
    wanted = _Journal(
        source_of(action.new.app, action.new.name),
        to_records(after.prepare),
        to_records(after.attach) if running else None,
    )
    before = [*record.operations("prepared"), *(record.operations("attached") if running else [])]
    gone, came = difference(before, [*after.prepare, *(after.attach if running else ())])
    ctx = Context(life.kernel, container=record.full_name, root_id=root_id(after.attach))
    ctx.pid = record.pid if running else 0
    return _Swap(record, ctx, gone, came, was, wanted)


def _exchange(life: Lifecycle, swaps: Sequence[_Swap]) -> None:
    for swap in swaps:
        _write(life, swap.record, swap.wanted, to_records(swap.gone), to_records(swap.came))
        failures = life.executor.undo(swap.gone, swap.ctx)
        if failures:
            raise PycoreError(f"{swap.record.full_name}: {'; '.join(failures)}")
    for swap in swaps:
        life.executor.run(swap.came, swap.ctx)
        _write(life, swap.record, swap.wanted)
        live = life.live.get(swap.record.id)
        if live:
            life.events.emit("update", live.record)
            life.pump.change(live.record.id, life.plugins.log(life.container(live.record), life.host()))
        if live and not live.starting:
            life.watch_health(live)


def finish(life: Lifecycle, records: Sequence[ContainerRecord]) -> None:
    """Bring changes to their end that were interrupted: take all back that was to go, do all that was to come.

    Raises PycoreError for the first that cannot be; it can be tried again.
    """
    for record in records:
        failures = life.executor.undo(record.operations("going"), _context(life, record))
        if failures:
            raise PycoreError(f"{record.full_name}: {'; '.join(failures)}")
    for record in records:
        running = bool(_context(life, record).pid)
        coming = [each for each in record.operations("coming") if running or each.step.phase is Phase.PREPARE]
        life.executor.run(coming, _context(life, record))
        _write(life, record, _Journal(record.source, _settled(record), None))


def _context(life: Lifecycle, record: ContainerRecord) -> Context:
    pid = record.pid if life.runs(record) else 0
    return Context(life.kernel, record.full_name, pid=pid, root_id=root_id(record.operations("attached")))


def _settled(record: ContainerRecord) -> tuple[Record, ...]:
    """The prepare phase's part of the journal, without what goes and what was there for the time of the change."""
    kept = zip(record.prepared, record.operations("prepared"), strict=True)
    return tuple(entry for entry, each in kept if each.step.phase is Phase.PREPARE and entry not in record.going)


def _write(
    life: Lifecycle,
    record: ContainerRecord,
    journal: _Journal,
    going: tuple[Record, ...] = (),
    coming: tuple[Record, ...] = (),
) -> None:
    """Write a record with another journal, where its process may end at this moment."""
    more = (*going, *coming)
    prepared = (*(entry for entry in more if entry not in journal.prepared), *journal.prepared)
    live = life.live.get(record.id)
    with live.lock if live else contextlib.nullcontext():
        current = life.current(record)
        attached = current.attached if journal.attached is None else journal.attached
        current = replace(
            current, source=journal.source, prepared=prepared, attached=attached, going=going, coming=coming
        )
        if live and not live.exited.is_set():
            live.record, live.container = current, None
        life.state.write(current)
