"""After the host has started anew: apps that were applied come back, each container as it was made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pycore.convergence.applying import dependencies, has_reached
from pycore.errors import PycoreError
from pycore.hookspecs import End
from pycore.image import Image
from pycore.life.lifecycle import Lifecycle
from pycore.order import at_once, in_order
from pycore.plan import applied_identity
from pycore.records.state import AppRecord
from pycore.resolve import resolve
from pycore.source.load import load_source
from pycore.spec import App, Container


def come_back(life: Lifecycle, record: AppRecord, number: int) -> None:
    """Prepare and start the containers of one app, up to ``number`` at once.

    What a person stopped stays so, as far as its restart policy says that. What fails is told as an event and in
    the supervisor's log, and keeps nothing else from coming back.
    """
    try:
        app = load_source(record.source, directory=Path(record.directory), plugins=life.plugins)
        if not record.images:  # it was applied by a version that did not keep what its containers are made of
            app = resolve(app, life.plugins, life.host()).app
    except PycoreError as error:
        _complain(record.name, error)
        return
    _ComingBack(life, app, record).run(number)


def _complain(who: str, error: PycoreError) -> None:
    sys.stderr.write(f"pycore: {who} did not come back: {error.message}\n")


@dataclass
class _ComingBack:
    life: Lifecycle
    app: App
    record: AppRecord
    ids: dict[str, str] = field(default_factory=dict[str, str])
    failed: set[str] = field(default_factory=set[str])

    def run(self, number: int) -> None:
        there = {record.name for record in self.life.state.containers() if record.app == self.app.name}
        missing = [container for container in self.app.containers.values() if container.name not in there]
        with_id = {container.name: self._with_id(container) for container in missing}
        at_once([partial(self._guarded, container, self._prepare) for container in with_id.values()], number)
        wanted = {name: each for name, each in with_id.items() if name not in self.failed and self._is_wanted(each)}
        acts = {name: partial(self._guarded, each, self._start) for name, each in wanted.items()}
        self.failed |= set(self.app.containers) - set(wanted)
        in_order(acts, partial(self._ready, wanted), self.life.changed, number)

    def _with_id(self, container: Container) -> Container:
        found = applied_identity(self.record, container.name, self.life.host().instance)
        self.ids[container.name] = found
        image = self.record.images.get(container.name)
        return (container.made_of(Image.from_json(image)) if image else container).with_id(found)

    def _guarded(self, container: Container, act: Callable[[Container], None]) -> None:
        try:
            act(container)
        except PycoreError as error:
            self.failed.add(container.name)
            _complain(container.full_name, error)
            about = self.life.state.container(container.id)
            self.life.events.emit("die", about, app=container.app.name, reason=error.message)
            self.life.tell()

    def _prepare(self, container: Container) -> None:
        self.life.prepare(container, self.life.describe(container))

    def _start(self, container: Container) -> None:
        record = self.life.state.container(container.id)
        assert record
        self.life.start_again(record)

    def _is_wanted(self, container: Container) -> bool:
        stopped = container.name in self.record.stopped
        end = End(status=None, ran=0.0, restarts=0, delay=0.0, stopped=stopped, boot=True)
        wanted = self.life.plugins.restart(container, end) is not None
        record = self.life.state.container(container.id)
        if record and not wanted:
            self.life.state.write(replace(record, status="stopped", wanted="stopped"))
        return wanted

    def _ready(self, wanted: Mapping[str, Container], name: str) -> bool:
        """Whether all it depends on is there; what has failed is not waited for, since it may yet come."""
        return all(self._is_there(other, condition) for other, condition in dependencies(self.app, wanted[name]))

    def _is_there(self, other: Container, condition: str) -> bool:
        if other.name in self.failed:
            return True
        record = self.life.state.container(self.ids.get(other.name, ""))
        return record is not None and has_reached(self.life, record, condition) is not False
