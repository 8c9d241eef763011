"""A new engine finds what an earlier one left: containers that run on, ends nobody heard of, things half done."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pycore.convergence.changes import finish
from pycore.errors import PycoreError
from pycore.launch.launcher import Adopted, start_time
from pycore.life.lifecycle import Lifecycle
from pycore.life.live import Live
from pycore.plan import applied_identity, container_of
from pycore.records.state import ContainerRecord


def take_over(life: Lifecycle) -> None:
    """Bring records and processes together: what an earlier engine left half done is taken back."""
    records = life.state.containers()
    known = [(record.id, record.pid, record.pid_started) for record in records if record.pid]
    adopted = {each.id: each for each in life.launcher.adopt(() if life.state.rebooted else known)}
    superseded = _superseded(life, records)
    for record in records:
        try:
            if life.state.rebooted:
                _after_boot(life, record)
            elif record.id in superseded:
                _clean_up(life, record, adopted.get(record.id))
            else:
                _take_over(life, _with_image(life, record), adopted.get(record.id))
        except PycoreError as error:  # it stays as it is, and keeps nobody else from being looked after
            sys.stderr.write(f"pycore: {record.full_name} is not in order: {error.message}\n")
    _finish_changes(life)
    if adopted:
        life.events.emit("take-over", containers=len(adopted))


def _with_image(life: Lifecycle, record: ContainerRecord) -> ContainerRecord:
    """The record of a version that did not write down what a container is made of: it is asked for again."""
    if record.image:
        return record
    found = None
    with contextlib.suppress(PycoreError):  # then its next start says why it cannot be
        found = life.plugins.image(container_of(record, life.plugins), life.host())
    return life.state.write(replace(record, image=found.image.to_json())) if found else record


def _superseded(life: Lifecycle, records: Sequence[ContainerRecord]) -> set[str]:
    """Of two containers with one name, which an apply was replacing when it died, the one that is not to stay: that
    which the app was not last applied with.
    """
    named: defaultdict[str, list[ContainerRecord]] = defaultdict(list)
    for record in records:
        named[record.full_name].append(record)
    found: set[str] = set()
    for alike in (each for each in named.values() if len(each) > 1):
        app = life.state.app(alike[0].app)
        current = applied_identity(app, alike[0].name, life.host().instance) if app else ""
        ids = [record.id for record in sorted(alike, key=lambda record: record.created)]
        found |= {each for each in ids if each != (current if current in ids else ids[0])}
    return found


def _finish_changes(life: Lifecycle) -> None:
    """Live changes that were interrupted come to their end; where one cannot, the next apply tries again."""
    records = [record for record in life.state.containers() if record.going or record.coming]
    with contextlib.suppress(PycoreError):
        finish(life, records)


def _take_over(life: Lifecycle, record: ContainerRecord, adopted: Adopted | None) -> None:
    if record.status in ("creating", "removing"):
        _clean_up(life, record, adopted)
        return
    if record.pid and not adopted:
        adopted = Adopted(record.id, 0, -1, status=record.exit_status, ended=record.finished or time.time())
    if adopted:
        live = _adopt(life, record, adopted)
        if not live.failed:
            return
        life.settled(live)
    elif record.attached:
        life.detach(record)
    if record.restart_at:
        life.schedule(life.current(record))


def _after_boot(life: Lifecycle, record: ContainerRecord) -> None:
    """The kernel's part of it is gone with the last boot; its layer and its log are there, for it to come back."""
    if record.auto_remove or record.status in ("creating", "removing"):
        life.remove(record)
        return
    operations, _ = record.readable("attached")
    life.executor.undo(operations, life.context(record))
    life.state.forget(record.id)


def _adopt(life: Lifecycle, record: ContainerRecord, adopted: Adopted) -> Live:
    live = life.look_after(replace(record, pid=adopted.pid), adopted.pidfd, adopted.kept)
    live.starting = adopted.starting
    if adopted.pidfd >= 0 and not record.pid and (adopted.starting or _is_ours_still(life, adopted.pid)):
        live.failed = True  # nobody knows how far it was brought by whoever it waits for
        life.kill(live, signal.SIGKILL)
    elif adopted.pidfd >= 0 and not adopted.starting:
        if not record.pid:  # its program had just begun, and nobody had written that down yet
            live.record = replace(live.record, pid_started=start_time(adopted.pid), started=time.time())
        running = replace(live.record, status="running", restart_at=0.0)
        if running != record:  # of a thousand that just run on, none is written anew
            live.record = life.state.write(running)
        _settle_pause(life, live)
        life.watch_health(live)
    live.decided.set()
    if adopted.pidfd < 0:
        life.over(live, adopted.status, adopted.ended)
    return live


def _settle_pause(life: Lifecycle, live: Live) -> None:
    """A container that was just being paused, or let go on, goes on."""
    record = live.record
    ctx = life.context(record, pid=record.pid)
    with contextlib.suppress(PycoreError, OSError):
        operations = record.operations("paused")
        if any(operation.probe(ctx) is False for operation in operations) and not life.executor.undo(operations, ctx):
            live.record = life.state.write(replace(record, paused=()))


def _is_ours_still(life: Lifecycle, pid: int) -> bool:
    """Whether a process has not become the program yet: it has the spawner's name until then."""
    try:
        return life.kernel.read(f"/proc/{pid}/comm").strip() == "pycore-spawner"
    except OSError:
        return True


def _clean_up(life: Lifecycle, record: ContainerRecord, adopted: Adopted | None) -> None:
    if adopted:
        live = _adopt(life, record, adopted)
        live.failed = True
        life.kill(live, signal.SIGKILL)
        life.settled(live)
    life.remove(record)
