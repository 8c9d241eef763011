"""Every call to the host fails once, in everything that is done to containers: nothing is lost, nothing stays behind.

Not a sample: for each act the calls that it makes are counted, and the first of them fails, then the second, and so
on until none is left that could; those of taking back too, and those inside the container. Then pairs: whatever
fails, and while that is taken back something else.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest
from pycore.errors import PycoreError
from pycore.launch.idmap import MapIds
from pycore.launch.namespaces import Namespaces
from pycore.ops import Operation
from pycore.plan import container_of, describe
from pycore.plugins import load_plugins
from pycore.steps import Phase
from support.faults import (
    BESIDE,
    COPIED,
    MAPPED,
    OUTWARD,
    WEB,
    Act,
    Case,
    Source,
    World,
    app_of,
    apply,
    changed,
    down,
    of_images,
    of_networks,
    run,
    verb,
    words_of,
    world,
)

pytestmark = pytest.mark.needs("libseccomp")

PLUGINS = load_plugins()

SHOP = app_of(web=WEB)
ALL = app_of(web=WEB, mapped=MAPPED, copied=COPIED)
LIVE = changed(
    SHOP, network={"ports": ["8081:80", "127.0.0.1:5353:53/udp"]}, resources={"memory": "32M", "cpus": None, "pids": 9}
)
RESTART = changed(SHOP, command=["sleep", "1000"], network={"ports": ["8081:80"], "dns": ["192.0.2.9"]})
RECREATE = changed(SHOP, image="/srv/image", network={"driver": "none", "ports": ()})
RECREATE["container"]["web"]["network"] = {"driver": "none"}
OTHERS = app_of(web=WEB, copied=COPIED)

CASES = (
    Case("apply", (), apply(ALL)),
    Case("apply more", (apply(SHOP),), apply(ALL)),
    Case("apply fewer", (apply(ALL),), apply(OTHERS)),
    Case("update", (apply(SHOP),), apply(LIVE)),
    Case("change that restarts", (apply(SHOP),), apply(RESTART)),
    Case("change that recreates", (apply(SHOP),), apply(RECREATE)),
    Case("start", (apply(SHOP), verb("stop")), verb("start")),
    Case("run", (), run),
    Case("create", (), lambda world: run(world, hold=True)),
    Case("start what was created", (lambda world: run(world, hold=True),), verb("start", "shop"), puts_back=False),
    Case("stop", (apply(SHOP),), verb("stop"), puts_back=False),
    Case("restart", (apply(SHOP),), verb("restart"), puts_back=False),
    Case("pause", (apply(SHOP),), verb("pause")),
    Case("unpause", (apply(SHOP), verb("pause")), verb("unpause"), puts_back=False),
    Case("stop what is paused", (apply(SHOP), verb("pause")), verb("stop"), puts_back=False),
    Case("down", (apply(ALL),), down, puts_back=False),
    Case("down of what is paused", (apply(SHOP), verb("pause")), down, puts_back=False),
    Case("take over", (apply(ALL),), lambda world: world.take_over(), puts_back=False),
)
IMAGES = app_of(**of_images())
IMAGE_CASES = (
    Case("apply what has to be fetched", (), apply(IMAGES)),
    Case("start what has an image", (apply(IMAGES), verb("stop", "kept")), verb("start", "kept")),
    Case("another image", (apply(app_of(web=of_images()["kept"])),), apply(app_of(web=of_images()["pulled"]))),
    Case("down of what has an image", (apply(IMAGES),), down, puts_back=False),
)
NETWORKS, NORMAL = of_networks(), app_of(outward=OUTWARD, beside=BESIDE)
NETWORK_CASES = (
    Case("apply in a neighbourhood", (), apply(NETWORKS)),
    Case("down in a neighbourhood", (apply(NETWORKS),), down, puts_back=False),
)
NORMAL_CASES = (
    Case("apply of a normal user", (), apply(NORMAL)),
    Case("down of a normal user", (apply(NORMAL),), down, puts_back=False),
)
VARIANTS = ("v2", "v1", "memory")
OTHERWISE = ("apply", "update", "pause", "unpause", "down of what is paused")
"""What is done by other operations where control groups are v1, or layers in memory."""
PAIRED = ("apply more", "update", "start", "pause")
"""What puts back something that was there; other acts do so by the same steps."""
SWEEPS = [(case, variant) for case in CASES for variant in VARIANTS if variant == "v2" or case.name in OTHERWISE]
SWEEPS += [(case, "images") for case in IMAGE_CASES]
SWEEPS += [(case, "v2") for case in NETWORK_CASES] + [(case, "own") for case in NORMAL_CASES]


NOTHING_LEFT_TO_DO = ("no such", "is not paused", "is paused already")


def prepared(made: World, case: Case) -> World:
    for act in case.before:
        act(made)
    return made


def count(case: Case, variant: str) -> tuple[int, dict[str, object]]:
    """How many calls an act makes, and what the host looks like after it."""
    with world(PLUGINS, variant) as made:
        prepared(made, case)
        before = made.calls()
        case.act(made)
        return made.calls() - before, made.look()


def attempt(made: World, act: Act, *failing: int) -> PycoreError | None:
    """Do it with calls failing; what was said of it."""
    made.kernel.fail_at(*failing)
    try:
        act(made)
    except PycoreError as error:
        return error
    finally:
        made.kernel.fail_at(0)
    return None


def same_end(made: World, case: Case, after: dict[str, object]) -> None:
    """One further command: the same again; where there is nothing left to do, that is said."""
    error = attempt(made, case.act)
    assert error is None or any(words in error.message for words in NOTHING_LEFT_TO_DO), error
    assert made.look() == after


@pytest.mark.slow
@pytest.mark.parametrize(("case", "variant"), SWEEPS, ids=lambda value: getattr(value, "name", value))
def test_every_call_fails_once(case: Case, variant: str) -> None:
    calls, after = count(case, variant)
    for number in range(1, calls + 1):
        with world(PLUGINS, variant) as made:
            prepared(made, case)
            host, records = made.look(), made.records()
            error = attempt(made, case.act, number)
            note = f"call {number} of {calls}: {made.kernel.calls and made.culprits}"
            if error is not None:
                check_words(made, error, note)
                restored = made.look() == host and made.records() == records
                if not restored:
                    assert not case.puts_back or taken_back_late(made), f"{note}: not put back"
                    same_end(made, case, after)
            made.down()
            assert made.look() == made.clean, note
            assert not made.spawner.running


def check_words(made: World, error: PycoreError, note: str) -> None:
    """The operation is named that failed; one that failed to be taken back may be in a journal instead."""
    words = words_of(error)
    assert made.culprits[0] in words, f"{note}: said was {words!r}"
    for culprit in made.culprits[1:]:
        assert culprit in words or culprit in journals(made) or not made.records(), f"{note}: said was {words!r}"


def journals(made: World) -> set[str]:
    """All that may be in force, in words."""
    return {
        operation.explain()
        for record in made.engine.containers()
        for operation in (*record.operations("attached"), *record.operations("prepared"))
    }


def taken_back_late(made: World) -> bool:
    """Whether the failure came in taking back what an apply had replaced: then it stands, and that is done again."""
    return any(record.status == "removing" for record in made.engine.containers())


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.name in PAIRED], ids=lambda case: case.name)
def test_another_call_fails_while_the_first_failure_is_taken_back(case: Case) -> None:
    for first, after in firsts(case).items():
        for second in range(first + 1, first + after + 1):
            with world(PLUGINS, "v1") as made:
                prepared(made, case)
                error = attempt(made, case.act, first, second)
                note = f"calls {first} and {second}: {made.culprits}"
                if error is not None:
                    check_words(made, error, note)
                made.down()
                assert made.look() == made.clean, note
                assert not made.spawner.running


def firsts(case: Case) -> dict[int, int]:
    """The last call of each operation, as after it the most is to be taken back, with how many calls follow on it."""
    found: dict[str, tuple[int, int]] = {}
    for number in range(1, count(case, "v1")[0] + 1):
        with world(PLUGINS, "v1") as made:
            prepared(made, case)
            before = made.calls()
            if attempt(made, case.act, number):
                found[made.culprits[0]] = (number, made.calls() - before - number)
    return dict(found.values())


def built_in() -> Iterator[type[Operation]]:
    """Every operation of the built-in plugins that describes something to be done."""
    for area in ("images", "isolation", "network", "storage"):
        package = importlib.import_module(f"pycore_{area}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".lost"):
                for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                    is_base = found.__name__.startswith("_")
                    if issubclass(found, Operation) and found.__module__ == module.name and not is_base:
                        yield found


def described(variant: str, app: Source) -> set[type[Operation]]:
    """The operations of an app, and of a pause."""
    with world(PLUGINS, variant) as made:
        made.engine.apply(made.app(app))
        met = set(made.met)
        for record in made.engine.containers():
            made.engine.pause(record.full_name)
            container = container_of(record, PLUGINS)
            done = describe(PLUGINS, container, made.engine.host())
            met |= {type(operation) for operation in (*done.prepare, *done.run)}
            met |= {type(operation) for operation in PLUGINS.describe(Phase.PAUSE, container, made.engine.host())}
        return met


def test_every_operation_takes_part() -> None:
    met = described("images", IMAGES).union(*(described(variant, ALL) for variant in VARIANTS))
    met |= described("v2", NETWORKS) | described("own", NORMAL)
    assert set(built_in()) <= met
    assert {MapIds, Namespaces} <= met
