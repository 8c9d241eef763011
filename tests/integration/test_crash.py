"""kill -9 of the engine at every moment of everything that it does; then one command, and the host is as it should be.

The moments are those before and after each operation, done or taken back, each write of a record, and each word to
the spawner. All of them: they are counted first, then a process dies at each. What runs on beside goes on running.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.plugins import load_plugins
from support.killing import Act, Moments, Place, Source, in_child, not_amiss

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp"), pytest.mark.needs("libnftables")]

PLUGINS = load_plugins()

NAMES = ("shop/web", "shop/side", "shop/more")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = tmp_path_factory.mktemp("crash")
    image = base / "image"
    sleep = shutil.which("sleep")
    assert sleep
    loaded = subprocess.run(["ldd", sleep], capture_output=True, text=True, check=True).stdout
    for source in (sleep, *re.findall(r"/\S+", loaded)):
        target = image / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    subprocess.run(["chmod", "-R", "a+rX", image], check=True)
    subprocess.run(["tar", "-cf", base / "image.tar", "-C", image, "."], check=True)
    place = Place(base, PLUGINS)
    in_child(lambda: place.engine().close())
    place.spawners_gone()
    yield place
    in_child(partial(clean_up, place))
    place.spawners_gone()


SLEEP = {"command": ["sleep", "1000"], "stop_signal": "SIGKILL"}

WEB: Source = SLEEP | {
    "image": "./image.tar",
    "network": {"ports": ["127.0.0.1:47080:80", "127.0.0.1:47100-47102:90-92/udp"]},
    "storage": {"volumes": ["data:/data"]},
    "resources": {"memory": "64M", "cpus": 0.5, "pids": 50},
    "isolation": {"userns": "700000:65536"},
}
SIDE: Source = SLEEP | {
    "image": "./image",
    "network": {"driver": "none"},
    "storage": {"driver": "vfs"},
    "isolation": {"no_new_privileges": False},
}
MORE: Source = SLEEP | {"image": "host", "network": {"ports": ["127.0.0.1:47200:80"]}}


def app_of(**containers: Source) -> Source:
    return {"name": "shop", "container": containers, "volume": {"data": {}}}


SHOP = app_of(web=WEB, side=SIDE)
LIVE = app_of(
    side=SIDE,
    web=WEB | {"network": {"ports": ["127.0.0.1:47081:80"]}, "resources": {"memory": "32M", "cpus": None, "pids": 60}},
)
RESTART = app_of(side=SIDE, web=WEB | {"command": ["sleep", "2000"], "network": {"ports": ["127.0.0.1:47081:80"]}})
RECREATE = app_of(side=SIDE, web=WEB | {"image": "host", "isolation": {}})


@dataclass(frozen=True)
class Case:
    """Something that is done, after what; and whether the container ``side`` is to run on beside it."""

    name: str
    act: Callable[[Place], Act]
    before: bool = True
    """Whether the app :data:`SHOP` is there before."""
    side_runs: bool = True
    paused: bool = False


def applied(source: Source) -> Callable[[Place], Act]:
    return lambda place: lambda engine: engine.apply(place.app(source))


def verb(name: str) -> Callable[[Place], Act]:
    return lambda place: lambda engine: getattr(engine, name)("shop/web")


def down(place: Place) -> Act:
    return lambda engine: engine.down("shop")


CASES = (
    Case("apply", applied(SHOP), before=False, side_runs=False),
    Case("apply more", applied(app_of(web=WEB, side=SIDE, more=MORE))),
    Case("apply fewer", applied(app_of(side=SIDE))),
    Case("update", applied(LIVE)),
    Case("change that restarts", applied(RESTART)),
    Case("change that recreates", applied(RECREATE)),
    Case("stop", verb("stop")),
    Case("restart", verb("restart")),
    Case("pause", verb("pause")),
    Case("unpause", verb("unpause"), paused=True),
    Case("stop what is paused", verb("stop"), paused=True),
    Case("down", down, side_runs=False),
)
REPEATABLE = {case.name for case in CASES if case.name.startswith(("apply", "update", "change", "stop", "restart"))}


def commit(place: Place, case: Case, deadly: int) -> list[str]:
    """In a child: what was before, then the act, with death at one of its moments."""
    moments = Moments(deadly)
    engine = place.engine(moments)
    if case.before:
        engine.apply(place.app(SHOP))
    if case.paused:
        engine.pause("shop/web")
    moments.counting = True
    case.act(place)(engine)
    moments.tick("the end")
    moments.counting = False
    return moments.passed


def afterwards(place: Place, case: Case) -> None:
    """In a child: the next command finds everything in order; the act can be done again; then all goes."""
    engine = place.engine()
    not_amiss(engine)
    if case.side_runs:
        (side,) = (record for record in engine.containers() if record.name == "side")
        assert side.status == "running"
        assert "sleep" in Path(f"/proc/{side.pid}/cmdline").read_text(encoding="ascii")
    if case.name in REPEATABLE:
        case.act(place)(engine)
        not_amiss(engine)
    clean_up(place, engine)


def clean_up(place: Place, engine: Engine | None = None) -> None:
    engine = engine or place.engine()
    for name in {record.app for record in engine.containers()} | {app.name for app in engine.state.apps()}:
        engine.down(name)
    not_amiss(engine)
    engine.plugins.idle(engine.host())  # as a supervisor has it done that has nothing else to do
    engine.close()


def examine(place: Place, case: Case, clean: set[str], note: str) -> None:
    status, _ = in_child(partial(afterwards, place, case))
    if status:
        in_child(partial(clean_up, place))
    assert not status, note
    place.spawners_gone()
    left = place.snapshot(NAMES) - clean
    assert not left, f"{note}: {sorted(left)}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_at_every_moment(place: Place, case: Case) -> None:
    clean = place.snapshot(NAMES)
    status, moments = in_child(partial(commit, place, case, 0))
    assert status == 0
    examine(place, case, clean, "nobody was killed")
    assert len(moments) > 2
    for number, moment in enumerate(moments, 1):
        status, lived = in_child(partial(commit, place, case, number))
        # What two threads write into a record, one after the other, may once be one write: a moment less.
        assert status == -signal.SIGKILL or (status == 0 and len(lived) < number), f"{moment}: {status}"
        examine(place, case, clean, f"killed at moment {number} of {len(moments)}: {moment}")


# -- not between operations but in the middle of them ----------------------------------------------------------

RANDOM_KILLS = 12


def kill_soon(after: float, whom: Callable[[], list[int]]) -> threading.Timer:
    """Kill processes a while after now."""

    def kill() -> None:
        for pid in whom():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(after, kill)
    timer.daemon = True
    timer.start()
    return timer


def apply_while(place: Place, whom: Callable[[], list[int]], after: float) -> bool:
    """In a child: an apply during which others are killed; whether it was successful."""
    engine = place.engine()
    timer = kill_soon(after, whom)
    try:
        engine.apply(place.app(SHOP))
    except PycoreError:
        return False
    finally:
        timer.cancel()
    return True


def spawners(place: Place) -> list[int]:
    return [pid for pid in place.processes() if "spawner" in _name(pid)]


def containers(place: Place) -> list[int]:
    """Processes between clone and exec, and those that run."""
    return [pid for pid in place.processes() if "spawner" not in _name(pid) and pid != os.getpid()]


def engine_itself(place: Place) -> list[int]:
    return [os.getpid()]


LASTING = app_of(web=MORE | {"restart": "always", "backoff": {"delay_min": "10ms"}})


def is_back(engine: Engine) -> bool:
    record = engine.find("shop/web")
    return record.status == "running" and record.restarts > 0


def until_back(engine: Engine) -> None:
    changed = engine.open().changed
    with changed:
        assert changed.wait_for(partial(is_back, engine), 10), engine.find("shop/web")


def come_again(place: Place, deadly: int) -> list[str]:
    """In a child: a program is killed, and its policy starts it again, with death at one of the moments of that."""
    moments = Moments(deadly)
    engine = place.engine(moments)
    engine.apply(place.app(LASTING))
    moments.counting = True
    os.kill(engine.find("shop/web").pid, signal.SIGKILL)
    until_back(engine)
    moments.tick("the end")
    moments.counting = False
    return moments.passed


def came_again(place: Place) -> None:
    """In a child: the next engine has it running."""
    engine = place.engine()
    until_back(engine)
    not_amiss(engine)
    clean_up(place, engine)


@pytest.mark.slow
def test_a_restart_is_not_lost_whenever_the_engine_dies(place: Place) -> None:
    clean = place.snapshot(NAMES)
    moments: list[str] = []
    status, moments = in_child(partial(come_again, place, 0))
    assert status == 0
    assert in_child(partial(came_again, place))[0] == 0
    assert "before launch" in moments
    for deadly in range(1, len(moments) + 1):
        note = f"{deadly}: {moments[deadly - 1]}"
        status, lived = in_child(partial(come_again, place, deadly))
        assert status == -signal.SIGKILL or (status == 0 and len(lived) < deadly), note
        status, _ = in_child(partial(came_again, place))
        if status:
            in_child(partial(clean_up, place))
        assert not status, note
        place.spawners_gone()
        assert place.snapshot(NAMES) == clean, note


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii", errors="replace")
    return ""


APPLY = Case("apply", applied(SHOP), before=False, side_runs=False)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [spawners, containers, engine_itself], ids=lambda each: each.__name__)
def test_killed_in_the_middle(place: Place, victims: Callable[[Place], list[int]]) -> None:
    clean = place.snapshot(NAMES)
    chance = random.Random(victims.__name__)
    for number in range(RANDOM_KILLS):
        after = chance.uniform(0.0, 0.08)
        status, _ = in_child(partial(apply_while, place, partial(victims, place), after))
        assert status in (0, -signal.SIGKILL), f"{number}: {victims.__name__} after {after:.4f} s"
        examine(place, APPLY, clean, f"{number}: {victims.__name__} killed after {after:.4f} s")
