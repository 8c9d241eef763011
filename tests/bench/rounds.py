"""The part ``rounds``: an app that comes and goes in one supervisor, and what is held more of at the end."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import mixed
from holdings import held
from runtimes import Pycore

EARLY = 10
"""The round that all later ones are compared with: by then everything was done once."""
SETTLING = 0.1
"""What memory may grow by from there: threads each have a heap, and garbage is looked for seldom."""
MIB = 1 << 20


class Round(Pycore):
    """A run dir of its own, whose supervisor stays between the rounds."""

    name = "pycore, rounds"
    run_dir = "/run/bench-pycore-rounds"


def rounds(directory: Path, root: Path, count: int) -> None:
    """Do so many rounds: an apply that fails, one that works, a change that fails, and down."""
    os.environ["PYCORE_LINGER"] = "60"
    pycore = Round(directory, root)
    run_dir, data_dir = Path(pycore.run_dir), pycore.directory / "data"
    works, fails = pycore.directory / "works.toml", pycore.directory / "fails.toml"
    works.write_text(mixed.spec(root, 20000))
    fails.write_text(mixed.spec(root, 20000, fails=True))
    marks = sorted({EARLY, count // 4, count // 2, count} - {0})
    pycore.command("ps")
    print(f"  {'round':>8} {'seconds':>8} {'MiB':>8} descriptors mounts cgroups links elements files", flush=True)
    began = time.perf_counter()
    early = middle = now = held(run_dir, data_dir, mixed.NAME, mixed.CONTAINERS)
    for number in range(1, count + 1):
        _must_fail(pycore, fails)
        pycore.command("apply", works)
        _must_fail(pycore, fails)
        pycore.command("down", mixed.NAME)
        if number in marks:
            time.sleep(0.2)  # the supervisor lets go of the last client
            now = held(run_dir, data_dir, mixed.NAME, mixed.CONTAINERS)
            memory, *others = asdict(now).values()
            words = " ".join(f"{other:7}" for other in others)
            print(f"  {number:8} {time.perf_counter() - began:8.1f} {memory / MIB:8.1f} {words}", flush=True)
            early = now if number <= EARLY else early
            middle = now if number <= count // 2 else middle
    grown = now.grown(early, int(early.memory * SETTLING))
    print(f"  more than after round {EARLY}: {grown or 'nothing'} (asked: nothing; memory: {SETTLING:.0%} to settle)")
    slope = (now.memory - middle.memory) / max(1, count - count // 2)
    print(f"  memory for each round of the second half: {slope / 1024:.2f} KiB", flush=True)


def _must_fail(pycore: Pycore, file: Path) -> None:
    try:
        pycore.command("apply", file)
    except RuntimeError as error:
        if "/no/such/program" in str(error):
            return
        raise
    raise RuntimeError(f"an apply of {file} should fail")
