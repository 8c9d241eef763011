"""The engine on a host in memory: plan, apply, change, stop, start, faults, down, in any order."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pycore.engine import Engine
from pycore.errors import PycoreError, SpecError
from pycore.life.execute import Executor
from pycore.ops import Context, Operation
from pycore.plan import Kind, Plan
from pycore.plugins import load_plugins
from pycore.source.load import load_source
from pycore.spec import App
from pycore.steps import Phase
from pycore.testing.fake import FakeKernel
from pycore.testing.launcher import FakeSpawner
from pycore.testing.strategies import DIRECTORY, Source, specs
from pycore_supervision.init import program

pytestmark = pytest.mark.needs("libseccomp")

PLUGINS = load_plugins()


def runnable(source: Source) -> Source:
    """With what a spec need not name but a start needs: a program in each container, and the networks of other apps."""
    for container in source["container"].values():
        if container.get("network", {}).get("container") not in (None, *source["container"]):
            del container["network"]
        container.pop("health", None)  # asked on a thread of its own, at times of its own
        container.setdefault("command", ["sleep", "inf"])
    return source


def names_of(source: Source) -> Iterator[str]:
    """The containers that a spec stands for: each table one, or as many as it says, with a number each."""
    for name, table in source["container"].items():
        number = table.get("replicas")
        yield from [name] if number is None else (f"{name}-{each}" for each in range(1, number + 1))


SPECS = specs(
    PLUGINS,
    {
        "container.*.image": st.just("host"),
        "container.*.command": st.just(["sleep", "inf"]),
        "container.*.isolation.user": st.sampled_from(["0", "1000", "7:8"]),
        "container.*.isolation.group_add": st.just(["44"]),
        "container.*.stop_grace_period": st.sampled_from(["1s", "10s"]),
        "container.*.depends_on": st.dictionaries(st.sampled_from(["a", "web"]), st.just("started"), max_size=2),
        "container.*.goal": st.just("running"),
        "container.*.network.container": st.sampled_from(["a", "web", "db", "default"]),
        "network.*.external": st.just(False),
        "network.*.parent": st.just("lo"),
        "container.*.restart": st.just("no"),
    },
).map(runnable)
"""What is in an image, who its users are, whether a program ends, is well, or comes back: not this test's subject."""

HOST_FILES = {"/somewhere/": "", "/somewhere/site/": "", "/var/lib/data/": "", program(): ""}

KEPT = ("/proc/sys/net/", "/sys/fs/cgroup/cgroup.subtree_control")
"""Switches of the host that stay on: nobody can tell who relies on them by then."""


class SafeUndo(Executor):
    """Faults come while something is done, not while it is taken back."""

    def __init__(self, kernel: FakeKernel, on_boundary: Callable[[str, Operation], None]) -> None:
        super().__init__(on_boundary=on_boundary)
        self.kernel = kernel

    def undo(self, operations: Sequence[Operation], ctx: Context) -> list[str]:
        with self.kernel.without_faults():
            return super().undo(operations, ctx)


class World:
    """A host in memory with an engine on it, and what an engine keeps on disk, in a directory of its own."""

    def __init__(self) -> None:
        self.open_files = len(os.listdir("/proc/self/fd"))
        self.base = Path(tempfile.mkdtemp(prefix="pycore-world-"))
        self.kernel = FakeKernel(HOST_FILES)
        self.spawner = FakeSpawner(self.kernel)
        self.done: list[Operation] = []
        """Host-side operations that were done or undone, as the executor came to them."""
        self.engine = self.start_engine()
        self.start = self.look()

    def start_engine(self) -> Engine:
        executor = SafeUndo(self.kernel, self._note)
        engine = Engine(
            self.base / "run", self.base / "data", plugins=PLUGINS, kernel=self.kernel,
            starts=1, launcher=self.spawner.connect, executor=executor,
        )  # fmt: skip
        engine.open()
        return engine

    def _note(self, when: str, operation: Operation) -> None:
        if when == "before":
            self.done.append(operation)

    def look(self) -> dict[str, object]:
        """The host, but for what is kept on purpose (volumes, caches, forwarding) and directories that are empty."""
        kept = (f"{self.base}/data/volumes", f"{self.base}/data/cache", *KEPT)
        found = self.kernel.snapshot(*kept)
        ours = f"file {self.base}"
        return {
            key: value
            for key, value in found.items()
            if not (key.startswith(ours) and repr(value).startswith("directory"))
        }

    def app(self, source: Source) -> App:
        return load_source(source, directory=DIRECTORY, plugins=PLUGINS)

    def end(self) -> None:
        names = {record.app for record in self.engine.containers()} | {app.name for app in self.engine.state.apps()}
        for name in names:
            self.engine.down(name)
        self.engine.close()
        left = self.look()
        shutil.rmtree(self.base)
        assert left == self.start
        assert not self.spawner.running
        assert len(os.listdir("/proc/self/fd")) == self.open_files, "a descriptor was left open"


def plan_of(world: World, app: App) -> Plan:
    """The plan, where the host has what the spec wants."""
    before = world.kernel.calls.copy()
    try:
        return world.engine.plan(app)
    except SpecError:
        assume(False)
        raise
    finally:
        assert world.kernel.calls == before


def host_side(plan: Plan) -> Counter[str]:
    """What a plan does on the host, whether done or taken back."""
    return Counter(
        repr(operation)
        for action in plan.actions
        for operation in (*action.undo, *action.do)
        if operation.step.phase in (Phase.PREPARE, Phase.ATTACH)
    )


@given(SPECS)
def test_a_valid_spec_comes_up_stays_and_goes(source: Source) -> None:
    world = World()
    try:
        app = world.app(source)
        plan = plan_of(world, app)
        world.done.clear()
        assert world.engine.apply(app).actions == plan.actions
        assert Counter(map(repr, world.done)) == host_side(plan)
        assert len(world.spawner.running) == len(app.containers)
        assert all(process.executed for process in world.spawner.running.values())
        calls = len(world.kernel.calls)
        assert world.engine.plan(world.app(source)).actions == ()
        assert world.engine.apply(world.app(source)).actions == ()
        assert len(world.kernel.calls) == calls
    finally:
        world.end()


@given(SPECS, st.data())
def test_a_fault_leaves_what_was_there(source: Source, data: st.DataObject) -> None:
    world = World()
    try:
        app = world.app(source)
        plan_of(world, app)
        calls = len(world.kernel.calls)
        world.engine.apply(app)
        total = len(world.kernel.calls) - calls
        world.engine.down(app.name)
        world.kernel.fail_at(data.draw(st.integers(1, total), label="call that fails"))
        try:
            world.engine.apply(app)
        except PycoreError:
            assert not world.engine.containers()
            assert world.look() == world.start
        world.kernel.fail_at(0)
    finally:
        world.end()


class Life(RuleBasedStateMachine):
    """Two apps and what may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.applied: dict[str, Source] = {}
        self.stopped: set[str] = set()

    @initialize(source=SPECS)
    def begin(self, source: Source) -> None:
        self.apply("one", source)

    @rule(name=st.sampled_from(["one", "two"]), source=SPECS)
    def apply(self, name: str, source: Source) -> None:
        self._apply({**source, "name": name})

    @rule(name=st.sampled_from(["one", "two"]), data=st.data())
    def change(self, name: str, data: st.DataObject) -> None:
        """Take the table of a container from another spec: often only a field or two differ."""
        assume(name in self.applied)
        source = copy.deepcopy(self.applied[name])
        other = data.draw(SPECS, label="where the new table comes from")
        container = data.draw(st.sampled_from(sorted(source["container"])), label="changed")
        table = next(iter(other["container"].values()))
        key = data.draw(st.sampled_from(sorted({*source["container"][container], *table} - {"image"}) or ["command"]))
        source["container"][container].pop(key, None)
        if key in table:
            source["container"][container][key] = table[key]
        try:
            self.world.app(source)
        except SpecError:
            assume(False)
        self._apply(source)

    def _apply(self, source: Source) -> None:
        app = self.world.app(source)
        plan = plan_of(self.world, app)
        self.world.done.clear()
        assert self.world.engine.apply(app).actions == plan.actions
        assert Counter(map(repr, self.world.done)) == host_side(plan)
        self._note(source, plan)
        assert self.world.engine.plan(app).actions == ()

    def _note(self, source: Source, plan: Plan) -> None:
        """What an apply that succeeded has changed. A program that had ended well stays as it is."""
        self.applied[plan.app.name] = source
        self.stopped -= {action.container for action in plan.actions if action.kind is not Kind.UPDATE}
        ended = [name for name in self.stopped if name.startswith(f"{plan.app.name}/")]
        assert all(self.world.engine.find(name).exit_status == 0 for name in ended)

    @rule(name=st.sampled_from(["one", "two"]), source=SPECS, data=st.data())
    def fail(self, name: str, source: Source, data: st.DataObject) -> None:
        """An apply of which one call fails leaves what was there, or has succeeded."""
        app = self.world.app({**source, "name": name})
        plan_of(self.world, app)
        before, records = self.world.look(), self._records()
        self.world.kernel.fail_at(data.draw(st.integers(1, 150), label="call that fails"))
        try:
            plan = self.world.engine.apply(app)
        except PycoreError:
            assert self.world.look() == before
            assert self._records() == records
        else:
            self._note({**source, "name": name}, plan)
        finally:
            self.world.kernel.fail_at(0)

    def _records(self) -> set[tuple[str, str, str]]:
        return {(record.full_name, record.id, record.status) for record in self.world.engine.containers()}

    @precondition(lambda self: self.applied)
    @rule(name=st.sampled_from(["one", "two"]), data=st.data(), number=st.sampled_from([None, 1, 2, 3]))
    def scale(self, name: str, data: st.DataObject, number: int | None) -> None:
        """Another number of one container: those that stay are left alone."""
        assume(name in self.applied)
        source = copy.deepcopy(self.applied[name])
        table = source["container"][data.draw(st.sampled_from(sorted(source["container"])), label="scaled")]
        table.pop("replicas", None)
        if number is not None:
            table["replicas"] = number
        try:
            self.world.app(source)
        except SpecError:  # a port of which there is one, say
            assume(False)
        before = {record.full_name: record for record in self.world.engine.containers()}
        stopped = set(self.stopped)
        self._apply(source)
        after = {record.full_name: record for record in self.world.engine.containers()}
        for both in (before.keys() & after.keys()) - stopped:
            assert after[both].id == before[both].id
            assert after[both].pid == before[both].pid

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        name = self._choose(data)
        assert self.world.engine.stop(name).status == "stopped"
        self.stopped.add(name)

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        name = self._choose(data)
        assert self.world.engine.start(name).status == "running"
        self.stopped.discard(name)

    @precondition(lambda self: self.applied)
    @rule(data=st.data(), status=st.sampled_from([0, 1, -9]))
    def end_program(self, data: st.DataObject, status: int) -> None:
        """A program ends by itself."""
        name = self._choose(data)
        record = self.world.engine.find(name)
        live = self.world.engine.open().live.get(record.id)
        self.world.spawner.end(record.id, status)
        if live:
            assert live.settled.wait(10)
            assert self.world.engine.find(name).exit_status == status
        self.stopped.add(name)

    @rule()
    def change_engines(self) -> None:
        """The engine goes, the next one takes over."""
        self.world.engine.close()
        self.world.engine = self.world.start_engine()

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def down(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.applied)))
        self.world.engine.down(name)
        del self.applied[name]
        self.stopped -= {each for each in self.stopped if each.startswith(f"{name}/")}

    def _choose(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self._names())), label="container")

    def _names(self) -> set[str]:
        """All containers that there are to be."""
        return {f"{app}/{name}" for app, source in self.applied.items() for name in names_of(source)}

    @invariant()
    def containers_are_those_applied(self) -> None:
        wanted = self._names()
        records: dict[str, Any] = {record.full_name: record for record in self.world.engine.containers()}
        assert set(records) == wanted
        running = {record.id for name, record in records.items() if name not in self.stopped}
        assert set(self.world.spawner.running) == running

    def teardown(self) -> None:
        self.world.end()


TestLife = Life.TestCase
