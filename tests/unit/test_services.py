"""What plugins do beside containers begins with an engine, is told of what is done on the host, and ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.hookspecs import Host, Service, hookimpl
from pycore.life.services import Services
from pycore.linux.kernel import Kernel
from pycore.plugins import load_plugins
from pycore.testing.fake import FakeKernel
from pycore.testing.launcher import FakeSpawner

pytestmark = pytest.mark.needs("libseccomp")

APP = 'name = "toy"\n[container.web]\nimage = "host"\ncommand = ["sleep", "inf"]\nnetwork.driver = "none"\n'


class Note:
    """Writes down what it is told, and what was on the host then."""

    def __init__(self, spawner: FakeSpawner) -> None:
        self.spawner = spawner
        self.told: list[str] = []

    @hookimpl
    def pycore_service(self, host: Host, kernel: Kernel) -> Service:
        assert kernel is self.spawner.kernel
        self.told.append(f"begin in {host.run_dir.name}")
        return self

    def changed(self) -> None:
        programs = [process.executed for process in self.spawner.running.values()]
        self.told.append("no process" if not programs else "running" if all(programs) else "waiting")

    def close(self) -> None:
        self.told.append("end")


class Broken(Note):
    def changed(self) -> None:
        raise PycoreError("the port is taken")

    def close(self) -> None:
        raise RuntimeError("a mistake")


@pytest.fixture
def spawner() -> FakeSpawner:
    return FakeSpawner(FakeKernel())


@pytest.fixture
def note(spawner: FakeSpawner) -> Note:
    return Note(spawner)


@pytest.fixture
def engine(tmp_path: Path, spawner: FakeSpawner, note: Note) -> Iterator[Engine]:
    plugins = load_plugins({"note": note})
    engine = Engine(
        tmp_path / "run", tmp_path / "data", plugins=plugins, kernel=spawner.kernel, launcher=spawner.connect
    )
    yield engine
    engine.close()


def test_it_is_told_before_the_program_begins_and_after_what_was_taken_back(engine: Engine, note: Note) -> None:
    engine.open()
    assert note.told == ["begin in run", "no process"]
    note.told.clear()
    engine.apply(engine.load_text(APP))
    assert note.told[0] == "no process"  # prepared
    assert note.told[-1] == "waiting"  # attached
    note.told.clear()
    engine.down("toy")
    assert set(note.told) == {"no process"}
    note.told.clear()
    engine.close()
    assert note.told == ["end"]


def test_nothing_is_told_where_nothing_is_done(engine: Engine, note: Note) -> None:
    app = engine.load_text(APP)
    engine.apply(app)
    note.told.clear()
    engine.apply(app)
    engine.plan(app)
    assert note.told == []
    engine.down("toy")


def test_one_that_fails_keeps_nobody_from_anything(spawner: FakeSpawner, capfd: pytest.CaptureFixture[str]) -> None:
    broken, fine = Broken(spawner), Note(spawner)
    services = Services([broken, fine])
    services.changed()
    services.close()
    services.changed()
    assert fine.told == ["no process", "end"]
    said = capfd.readouterr().err
    assert "pycore: the port is taken\n" in said
    assert "RuntimeError: a mistake" in said
