"""The part ``scale``: few and many containers in one app, and what they cost: each beside what is asked of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdings import pss, residents
from measure import seconds_of
from runtimes import Pycore

MIB = 1 << 20
WARM = 10
"""Containers with which everything is done once before it is measured."""
TRIES = 5
IDLE = 5.0
"""Seconds for which nothing is asked of the supervisor."""


class Crowd(Pycore):
    """A run dir of its own."""

    name = "pycore, scale"
    run_dir = "/run/bench-pycore-scale"


@dataclass
class Measured:
    """What so many containers cost; seconds and bytes."""

    count: int
    start: float
    held: float
    """Memory of supervisor and spawner, and"""
    peak: float
    """the most that it ever was (resident set, which counts shared pages for each)."""
    first_ps: float
    ps: float
    same: float
    """An apply that changes nothing."""
    idle: float
    """Share of a processor that is used while nothing is asked."""
    take_over: float
    """From the death of the supervisor until the next command has its answer."""
    next_ps: float
    down: float


def scale(directory: Path, root: Path, few: int, many: int) -> None:
    """Measure both, and print what was measured and what is asked."""
    os.environ["PYCORE_LINGER"] = "60"
    pycore = Crowd(directory, root)
    _measure(pycore, WARM)
    small, large = (_measure(pycore, count) for count in (few, many))
    print(f"  {'':44} {few:>10} {many:>10}", flush=True)
    milliseconds: dict[str, Callable[[Measured], float]] = {
        "start, for each container": lambda each: each.start / each.count,
        "ps, the first after the apply": lambda each: each.first_ps,
        "ps": lambda each: each.ps,
        "apply that changes nothing": lambda each: each.same,
        "kill -9 of the supervisor, until ps answers": lambda each: each.take_over,
        "ps, the first after that": lambda each: each.next_ps,
        "down, for each container": lambda each: each.down / each.count,
    }
    mebibytes: dict[str, Callable[[Measured], float]] = {
        "held by supervisor and spawner": lambda each: each.held,
        "peak": lambda each: each.peak,
    }
    for words, of in milliseconds.items():
        print(f"  {words + ' (ms)':44} {of(small) * 1e3:10.1f} {of(large) * 1e3:10.1f}", flush=True)
    for words, of in mebibytes.items():
        print(f"  {words + ' (MiB)':44} {of(small) / MIB:10.2f} {of(large) / MIB:10.2f}", flush=True)
    print(f"  {'processor while idle (%)':44} {small.idle * 100:10.2f} {large.idle * 100:10.2f}", flush=True)
    _judge(small, large)


def _judge(small: Measured, large: Measured) -> None:
    more = (large.held - small.held) / (large.count - small.count)
    for words, figure, most in (
        ("time for each container, many against few", large.start / large.count / (small.start / small.count), 1.3),
        ("memory, of 150 MB", large.held / 150e6, 1.0),
        ("memory for each container more, of 0.3 MB", more / 0.3e6, 1.0),
        ("ps, of 100 ms", large.ps / 0.1, 1.0),
        ("ps, the first after the apply, of 100 ms", large.first_ps / 0.1, 1.0),
        ("ps, the first after a take-over, of 100 ms", large.next_ps / 0.1, 1.0),
        ("apply that changes nothing, of 150 ms", large.same / 0.15, 1.0),
        (f"take-over of {small.count}, of 1 s", small.take_over, 1.0),
    ):
        verdict = "as asked" if figure <= most else "NOT as asked"
        print(f"  {words:44} {figure:10.2f} (at most {most}) {verdict}", flush=True)


def _measure(pycore: Crowd, count: int) -> Measured:
    run_dir = Path(pycore.run_dir)
    start = seconds_of(lambda: pycore.start_many(count, bridged=False, workers=1))
    file = pycore.directory / "many.toml"
    ps = [seconds_of(lambda: pycore.command("ps")) for _ in range(TRIES)]
    same = min(seconds_of(lambda: pycore.command("apply", file)) for _ in range(TRIES))
    held, peak, idle = _memory(run_dir), _peak(run_dir), _idle(run_dir)
    take_over = seconds_of(lambda: (_kill(run_dir), pycore.command("ps")))
    next_ps = seconds_of(lambda: pycore.command("ps"))
    down = seconds_of(lambda: pycore.remove_many(count))
    return Measured(count, start, held, peak, ps[0], min(ps), same, idle, take_over, next_ps, down)


def _memory(run_dir: Path) -> int:
    return sum(pss(pid) for pid in residents(run_dir))


def _peak(run_dir: Path) -> int:
    """The largest resident sets of all, one beside the other (proc_pid_status(5))."""
    lines = [line for pid in residents(run_dir) for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _idle(run_dir: Path) -> float:
    before = _processor_time(run_dir)
    time.sleep(IDLE)
    return (_processor_time(run_dir) - before) / IDLE


def _processor_time(run_dir: Path) -> float:
    """Seconds that were used so far (proc_pid_stat(5): utime, stime)."""
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in residents(run_dir))
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


def _kill(run_dir: Path) -> None:
    """Kill the supervisor, as nothing can be prepared for."""
    os.kill(int((run_dir / "lock").read_text()), signal.SIGKILL)
