"""Live changes: a container's operations before against those after, over several containers at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pycore.errors import PycoreError, noted
from pycore.launch.idmap import root_id
from pycore.lifecycle import Lifecycle
from pycore.ops import Context, Operation, Record, to_records
from pycore.plan import Action, difference, source_of
from pycore.state import ContainerRecord


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
    attached: tuple[Record, ...]


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
    was = _Journal(record.source, record.prepared, record.attached)
    wanted = _Journal(
        source_of(action.new.app, action.new.name),
        to_records(after.prepare),
        to_records(after.attach) if running else record.attached,  # what its last end could not take back
    )
    before = [*record.operations("prepared"), *(record.operations("attached") if running else [])]
    gone, came = difference(before, [*after.prepare, *(after.attach if running else ())])
    ctx = Context(life.kernel, container=record.full_name, root_id=root_id(after.attach))
    ctx.pid = record.pid if running else 0
    return _Swap(record, ctx, gone, came, was, wanted)


def _exchange(life: Lifecycle, swaps: Sequence[_Swap]) -> None:
    for swap in swaps:
        _write(life, swap.record, swap.wanted, (*to_records(swap.gone), *to_records(swap.came)))
        failures = life.executor.undo(swap.gone, swap.ctx)
        if failures:
            raise PycoreError(f"{swap.record.full_name}: {'; '.join(failures)}")
    for swap in swaps:
        life.executor.run(swap.came, swap.ctx)
        _write(life, swap.record, swap.wanted)
        live = life.live.get(swap.record.id)
        if live:
            life.pump.change(live.record.id, life.plugins.log(life.container(live.record), life.host()))
        if live and not live.starting:
            life.watch_health(live)


def _write(life: Lifecycle, record: ContainerRecord, journal: _Journal, more: tuple[Record, ...] = ()) -> None:
    """Write a record with another journal, where its process may end at this moment."""
    prepared = (*(entry for entry in more if entry not in journal.prepared), *journal.prepared)
    live = life.live.get(record.id)
    with live.lock if live else contextlib.nullcontext():
        current = replace(life.current(record), source=journal.source, prepared=prepared, attached=journal.attached)
        if live and not live.exited.is_set():
            live.record, live.container = current, None
        life.state.write(current)
