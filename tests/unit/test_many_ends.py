"""Many containers end at once: each is waited for as long as some come to their end, and killed in its own time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.life.live import Live
from pycore.life.patience import happens
from pycore.records.state import ContainerRecord
from pycore.testing.fake import FakeKernel
from pycore.testing.launcher import FakeSpawner

pytestmark = pytest.mark.needs("libseccomp")

ENOUGH = 20.0


class Slow(threading.Event):
    """An event that is waited for in steps, each as long as the patience of whoever waits."""

    def __init__(self, steps: int, moves: int) -> None:
        super().__init__()
        self.steps, self.moves, self.moved = steps, moves, 0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.steps -= 1
        if self.moves:
            self.moves -= 1
            self.moved += 1
        if self.steps <= 0:
            self.set()
        return self.is_set()


def test_what_moves_is_waited_for() -> None:
    event = Slow(steps=1000, moves=1000)
    assert happens(event, 10, lambda: event.moved)


def test_what_does_not_move_any_more_is_given_up() -> None:
    event = Slow(steps=1000, moves=3)
    assert not happens(event, 10, lambda: event.moved)
    assert event.steps == 1000 - 4, "three steps brought it forward, and the fourth did not"


class Gate:
    """The janitor, which is let through one end at a time."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.life = engine.open()
        self.tickets = threading.Semaphore(0)
        settle = self.life._settle  # pyright: ignore[reportPrivateUsage]

        def one(live: Live) -> None:
            assert self.tickets.acquire(timeout=ENOUGH)
            settle(live)

        monkeypatch.setattr(self.life, "_settle", one)

    def open(self) -> None:
        for _ in range(100):
            self.tickets.release()


class Later(threading.Event):
    """While it is waited for in vain, the janitor gets through one end."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def wait(self, timeout: float | None = None) -> bool:
        if self.is_set():
            return True
        with self.gate.life.changed:
            self.gate.tickets.release()
            assert self.gate.life.changed.wait(ENOUGH)
        return self.is_set()


@pytest.fixture
def spawner() -> FakeSpawner:
    return FakeSpawner(FakeKernel())


@pytest.fixture
def engine(tmp_path: Path, spawner: FakeSpawner) -> Iterator[Engine]:
    with Engine(tmp_path / "run", tmp_path / "data", kernel=spawner.kernel, launcher=spawner.connect) as engine:
        yield engine


def apply(engine: Engine, *tables: str) -> list[ContainerRecord]:
    """Start containers c0, c1 ..., with more of their tables; their records, in this order."""
    text = 'name = "t"\n'
    for number, table in enumerate(tables):
        text += f'[container.c{number}]\nimage = "host"\ncommand = ["sleep", "inf"]\nnetwork = "none"\n{table}\n'
    engine.apply(engine.load_text(text))
    return engine.containers()


def test_who_comes_last_is_waited_for_while_others_are_put_in_order(
    engine: Engine, spawner: FakeSpawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = apply(engine, *[""] * 6)
    gate = Gate(engine, monkeypatch)
    for record in records:
        gate.life.live[record.id].settled = Later(gate)
    end, asked = spawner.end, list[str]()

    def end_all_from_the_last(identity: str, status: int = 0) -> None:
        asked.append(identity)
        if len(asked) == len(records):
            for each in reversed(asked):
                end(each, status)

    monkeypatch.setattr(spawner, "end", end_all_from_the_last)
    engine.down("t")
    assert engine.containers() == []


def test_what_is_not_undone_is_no_process_that_hangs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(engine, "")
    gate = Gate(engine, monkeypatch)
    monkeypatch.setattr("pycore.life.lifecycle.ORDER_WAIT", 0.05)
    with pytest.raises(PycoreError, match="t/c0 has ended, and what was done for it is still not undone"):
        engine.stop("t/c0")
    gate.open()


@pytest.mark.parametrize("act", ["start", "change"])
def test_whoever_wants_one_that_just_removes_itself_is_not_in_its_way(
    engine: Engine, spawner: FakeSpawner, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    text = 'name = "t"\n[container.t]\nimage = "host"\ncommand = ["sleep", "inf"]\nnetwork = "none"\n'
    engine.run(engine.load_text(text), auto_remove=True)
    (record,) = engine.containers()
    gate, waiting = Gate(engine, monkeypatch), threading.Event()
    settled = gate.life.settled

    def wait(live: Live) -> bool:
        waiting.set()
        return settled(live)

    monkeypatch.setattr(gate.life, "settled", wait)
    monkeypatch.setattr("pycore.life.lifecycle.ORDER_WAIT", ENOUGH)
    exited = gate.life.live[record.id].exited
    spawner.end(record.id)
    assert exited.wait(ENOUGH)
    errors: list[PycoreError] = []

    def want() -> None:
        try:
            engine.start("t") if act == "start" else engine.change("t", lambda source: source)
        except PycoreError as error:
            errors.append(error)

    thread = threading.Thread(target=want)
    thread.start()
    assert waiting.wait(ENOUGH)
    gate.open()
    thread.join(ENOUGH / 2)
    assert not thread.is_alive()
    assert [error.message for error in errors] == ["t/t has just been removed"]
    assert engine.containers() == []


def test_a_process_that_hangs_is_named(engine: Engine, spawner: FakeSpawner, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = apply(engine, "", "")
    monkeypatch.setattr("pycore.life.lifecycle.KILL_WAIT", 0.05)
    end = spawner.end

    def end_others(identity: str, status: int = 0) -> None:
        if identity != first.id:
            end(identity, status)

    monkeypatch.setattr(spawner, "end", end_others)
    with pytest.raises(PycoreError, match="t/c0 does not end, not even by SIGKILL"):
        engine.down("t", 0)
    assert second.id not in spawner.running
    monkeypatch.undo()


def test_each_is_killed_when_its_own_time_is_over(engine: Engine, spawner: FakeSpawner) -> None:
    deaf = 'stop_signal = "SIGWINCH"\nstop_grace_period = "{}"'
    patient, *others = apply(engine, deaf.format("1h"), deaf.format("0s"), deaf.format("0s"))
    life = engine.open()
    ends = [life.live[record.id].exited for record in others]
    stop = threading.Thread(target=engine.down, args=("t",))
    stop.start()
    assert all(end.wait(ENOUGH) for end in ends)
    assert patient.id in spawner.running
    spawner.end(patient.id)
    stop.join(ENOUGH)
    assert engine.containers() == []


def test_all_are_killed_before_any_is_put_in_order(
    engine: Engine, spawner: FakeSpawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = apply(engine, *['stop_signal = "SIGWINCH"'] * 3)
    gate = Gate(engine, monkeypatch)
    ends = [gate.life.live[record.id].exited for record in records]
    stop = threading.Thread(target=engine.down, args=("t", 0))
    stop.start()
    assert all(end.wait(ENOUGH) for end in ends)
    gate.open()
    stop.join(ENOUGH)
    assert engine.containers() == []
