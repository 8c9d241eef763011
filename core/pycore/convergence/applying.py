"""One apply: everything new is prepared, everything old lets go, what runs is changed, what is new starts.

What starts does so in the order of its dependencies, as much at once as they allow; then each container has a
goal to reach. Every step notes the way back before the next one is taken.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pycore.convergence.changes import change
from pycore.errors import Conflict, PycoreError
from pycore.life.lifecycle import Lifecycle
from pycore.life.live import exit_code
from pycore.logs import Query
from pycore.order import in_order, levels
from pycore.plan import Action, Kind, Plan
from pycore.records.state import ContainerRecord
from pycore.spec import App, Container, Process, signal_name

Progress = Callable[[str, str], None]
"""Called with a container's full name and words for what has become of it, from any thread; it must not wait.

Words in :data:`FINAL` say that something has been done, others what is being done, or waited for.
"""

Back = list[Callable[[], object]]
"""The way back of an apply, step by step: gone last first when it fails."""

LAST_LINES = 5
"""Lines of its output that are shown of a container that did not reach its goal."""

_DONE = {
    Kind.CREATE: "created",
    Kind.START: "started",
    Kind.UPDATE: "updated",
    Kind.RESTART: "restarted",
    Kind.RECREATE: "recreated",
    Kind.REMOVE: "removed",
}

_REACHED = {"healthy": "healthy", "exit-0": "completed"}

FETCHED = "fetched"
"""What has become of an image that was not here."""

FINAL = frozenset({*_DONE.values(), *_REACHED.values(), FETCHED})

_CONDITIONS = {"started": "to be started", "healthy": "to be healthy", "completed": "to be completed"}


@dataclass
class Cancel:
    """Whether whoever waits for an apply has given up; :meth:`now` says that they have."""

    changed: threading.Condition
    given_up: bool = False

    def check(self) -> None:
        """Raises Conflict where they have."""
        if self.given_up:
            raise Conflict("given up: the client is gone, or wanted it to end")

    def now(self) -> None:
        """Give up: an apply that waits for something fails, and is taken back."""
        self.given_up = True
        with self.changed:
            self.changed.notify_all()


def quiet(_container: str, _word: str) -> None:
    """A :data:`Progress` for nobody."""


@dataclass
class Apply:
    """One apply, after its plan was made and what is new was prepared."""

    life: Lifecycle
    plan: Plan
    back: Back
    number: int
    """How many containers are worked on at once."""
    progress: Progress = quiet
    cancel: Cancel | None = None
    _said: dict[str, str] = field(default_factory=dict[str, str])
    """What was last said to be waited for, by container."""
    _pending: set[str] = field(default_factory=set[str])
    """Names of containers that are to be started and have not been yet."""

    def carry_out(self) -> None:
        """First everything old lets go (of ports, of names), then what runs is changed, then what is new starts."""
        actions = self.plan.actions
        old = [action.old for action in actions if action.old and action.kind is not Kind.UPDATE]
        self._stop(old)
        updates = [action for action in actions if action.kind is Kind.UPDATE]
        if updates:
            self.back.append(change(self.life, updates))
        for action in actions:
            if action.kind in (Kind.REMOVE, Kind.UPDATE):
                self.progress(action.container, _DONE[action.kind])
        self._start([action for action in actions if action.new and action.kind is not Kind.UPDATE])

    def _stop(self, records: Sequence[ContainerRecord]) -> None:
        running = [record for record in records if self.life.runs(record)]
        for layer in stop_order(running):
            self.back += [partial(self.life.start_again, record) for record in layer]
            self.life.stop(layer)
        waiting = [record for record in records if record not in running and record.restart_at]
        if waiting:
            self.back += [partial(self.life.wait_again, record) for record in waiting]
            self.life.stop(waiting)

    def _start(self, actions: Sequence[Action]) -> None:
        """Start all, each after what it depends on; then wait for what each is for."""
        acts: dict[tuple[str, str], Callable[[], object]] = {}
        for action in actions:
            assert action.new
            acts["start", action.new.name] = partial(self._start_one, action)
            self._pending.add(action.new.name)
        for container in self.plan.app.containers.values():
            if container[Process].goal != "running":
                acts["goal", container.name] = partial(self._goal_reached, container)
        in_order(acts, self._ready, self.life.changed, self.number)

    def _start_one(self, action: Action) -> None:
        """Start one container, with the way back noted as soon as there is one."""
        assert action.new
        self.progress(action.container, "starting")
        began = self.life.executor.clock()
        if action.kind in (Kind.START, Kind.RESTART):
            self.back.append(change(self.life, [action]))
        record = self.life.state.container(action.new.id)
        assert record
        self.life.start(record, action.new, action.description)
        self.back.append(partial(self.life.stop, [record], 0))
        self._pending.discard(action.new.name)
        self.life.tell()
        self.life.executor.note(action.container, "total", partial(str, action.kind.value), began)
        self.progress(action.container, _DONE[action.kind])

    def _goal_reached(self, container: Container) -> None:
        self.progress(container.full_name, _REACHED[container[Process].goal])

    # -- waiting -----------------------------------------------------------------------------------------

    def _ready(self, act: tuple[str, str]) -> bool:
        if self.cancel:
            self.cancel.check()
        kind, name = act
        container = self.plan.app.containers[name]
        if kind == "goal":
            goal = container[Process].goal
            reached = self._has_reached(container, goal, "")
            if not reached and name not in self._pending:
                self._say(container, "waiting to be healthy" if goal == "healthy" else "waiting for its end")
            return reached
        for other, condition in dependencies(self.plan.app, container):
            if not self._has_reached(other, condition, container.full_name):
                self._say(container, f"waiting for {other.name} {_CONDITIONS[condition]}")
                return False
        return True

    def _say(self, container: Container, words: str) -> None:
        """Say what is waited for, once."""
        if self._said.get(container.name) != words:
            self._said[container.name] = words
            self.progress(container.full_name, words)

    def _has_reached(self, container: Container, condition: str, who: str) -> bool:
        """Whether a container is as far as wanted. Raises PycoreError where it will not get there by itself."""
        record = self.life.state.container(self.plan.ids[container.name])
        if container.name in self._pending or record is None:
            return False
        reached = has_reached(self.life, record, condition)
        if reached is None:
            raise self._lost(record, condition, who)
        return reached

    def _lost(self, record: ContainerRecord, condition: str, who: str) -> PycoreError:
        """What is said of a container that will not get where it is wanted."""
        if record.health == "unhealthy" and record.status == "running":
            became = "it is unhealthy"
        else:
            became = ended_words(record)
        wanted = "become healthy" if condition == "healthy" else "end with status 0"
        error = PycoreError(f"{record.full_name} did not {wanted}: {became}")
        if who:
            error.add_note(f"{who} depends on that")
        for note in (*self._last_answer(record), *self._last_lines(record)):
            error.add_note(note)
        return error

    def _last_answer(self, record: ContainerRecord) -> Iterable[str]:
        live = self.life.live.get(record.id)
        results = live.health.health.results if live and live.health else ()
        return [f"its health check said: {result.output}" for result in list(results)[-1:]]

    def _last_lines(self, record: ContainerRecord) -> Iterable[str]:
        """The end of its output: it may be taken back with the container in a moment."""
        log = self.life.plugins.log(self.life.container(record), self.life.host())
        try:
            with contextlib.closing(log.read(Query(tail=LAST_LINES))) as reader:
                data = b"".join(chunk.data for chunk in reader.more())
        except (PycoreError, OSError):
            return []
        return [f"its output: {line}" for line in data.decode("utf-8", "replace").splitlines()[-LAST_LINES:]]


def has_reached(life: Lifecycle, record: ContainerRecord, condition: str) -> bool | None:
    """Whether a container is ``started`` (or ``running``), ``healthy``, ``completed`` (or ``exit-0``).

    None where it will not get there by itself.
    """
    if not record.started:
        return False
    if condition in ("running", "started"):
        return True
    running = record.id in life.live
    if condition == "healthy":
        if running and record.health == "healthy":
            return True
        lost = record.health == "unhealthy" or not (running or record.restart_at)
    else:
        if not running and record.exit_status == 0:
            return True
        lost = not (running or record.restart_at)
    return None if lost else False


def ended_words(record: ContainerRecord) -> str:
    """How a container ended, in words."""
    code = exit_code(record.exit_status)
    words = "it has ended" if code is None else f"it ended with status {code}"
    if record.exit_status is not None and record.exit_status < 0:
        words = f"it was killed by {signal_name(-record.exit_status)}"
    return f"{words}: {record.reason}" if record.reason else words


def dependencies(app: App, container: Container) -> Iterable[tuple[Container, str]]:
    """The containers that come before one, each with what is waited for."""
    for service, condition in container[Process].depends_on.items():
        for other in app.containers.values():
            if other.service == service:
                yield other, condition


def stop_order(records: Iterable[ContainerRecord]) -> list[list[ContainerRecord]]:
    """Containers in layers to be stopped one after the other: what depends on others first."""
    by_id = {record.id: record for record in records}
    services: dict[tuple[str, str], list[str]] = {}
    for record in by_id.values():
        services.setdefault((record.app, record.service), []).append(record.id)
    needs = {
        record.id: [each for service in _needs(record) for each in services.get((record.app, service), ())]
        for record in by_id.values()
    }
    return [[by_id[each] for each in layer] for layer in reversed(levels(by_id, needs))]


def _needs(record: ContainerRecord) -> Iterable[str]:
    needs: Mapping[str, str] = record.source["container"][record.name].get("depends_on", {})
    return list(needs)
