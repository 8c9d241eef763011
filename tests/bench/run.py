"""`make bench`: pycore beside the other runtimes of this host, in one run, as one table.

Runs in namespaces of its own, with no registry and no download: all runtimes get the same small image, made
from the host's own true and sleep. A runtime that is not installed, or fails, is left out with the reason.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import enclosure
import measure
from images import images
from networks import networks, rates
from pycore.errors import PycoreError
from rounds import rounds
from runtimes import RUNTIMES, Floor, Pycore, Runtime, make_image, run
from scale import scale

PARTS = {
    "start": "one container without network, start to exit (ms: best, median, median against the floor)",
    "exec": "one more program in a container that runs, start to exit (ms: best, median, median against pycore's)",
    "many": "containers without network that stay (per second; MiB held for each, and by what they all share)",
    "floods": "1 GB of lines from a container in the background (seconds, MB/s; MiB that it adds to what is held)",
    "networks": "bridged containers with a name and two ports each (per second), their set-up, and how fast they are",
    "images": "an image of 450 MB and 12,000 files (seconds: best, median); starts from 1 and from 30 layers",
    "scale": "few and many containers in one app of pycore's, beside what is asked",
    "rounds": "an app that comes and goes in one supervisor of pycore's, and what is held more of at the end",
}
MIB = 1 << 20
FLOOD = 1_000_000_000
LINE = "a line of a log as programs write them, with a level, a word or two, and a number 42"
"""What is written again and again, 85 bytes with its newline."""
TRIAL = 12
"""Containers with which the best number of starts at once is looked for."""


def main() -> None:
    options = _options()
    if options.list:
        for word, doc in PARTS.items():
            print(f"{word:8} {doc}")
        print("runtimes:", ", ".join(kind.name for kind in RUNTIMES))
        return
    enclosure.enter()
    with tempfile.TemporaryDirectory(prefix="pycore-bench-") as name:
        directory = Path(name)
        root = make_image(directory)
        with ExitStack() as stack:
            stack.callback(enclosure.clear_cgroups)
            parts = options.parts or [*PARTS]
            runtimes = list(_ready(directory, root, options.only, stack)) if {*_PARTS, "images"} & {*parts} else []
            for part in parts:
                print(f"\n{PARTS[part]}", flush=True)
                if part in _PARTS:
                    _PARTS[part](runtimes, options)
                elif part == "images":
                    images(directory, runtimes, options.moves, not options.only)
                elif part == "scale":
                    scale(directory, root, options.count, options.crowd)
                else:
                    rounds(directory, root, options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all without one")
    parser.add_argument("--only", action="append", metavar="RUNTIME", help="only this one; may be given again")
    parser.add_argument("--turns", type=int, default=40, help="starts that are timed for each runtime (40)")
    parser.add_argument("--count", type=int, default=100, help="containers that stay (100)")
    parser.add_argument("--crowd", type=int, default=1000, help="containers of one app in the part `scale` (1000)")
    parser.add_argument("--rounds", type=int, default=1000, help="rounds in the part of that name (1000)")
    parser.add_argument("--moves", type=int, default=3, help="times that an image is loaded and pulled (3)")
    parser.add_argument("--limit", type=float, default=120, help="seconds for `start`, and for `exec` (120)")
    parser.add_argument("--list", action="store_true", help="show parts and runtimes")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def _ready(directory: Path, root: Path, only: list[str] | None, stack: ExitStack) -> Iterator[Runtime]:
    """The runtimes that are there and come up."""
    for kind in RUNTIMES:
        if only and kind.name not in only:
            continue
        if not kind.found():
            print(f"{kind.name}: not installed", file=sys.stderr)
            continue
        runtime = kind(directory, root)
        try:
            stack.enter_context(runtime.ready())
            runtime.once()
        except (OSError, RuntimeError, PycoreError) as error:
            print(f"{kind.name}: left out: {error}", file=sys.stderr)
            continue
        yield runtime


def _start(runtimes: list[Runtime], options: argparse.Namespace) -> None:
    contenders: dict[str, Callable[[], object]] = {runtime.name: runtime.once for runtime in runtimes}
    times = measure.in_turns(contenders, options.turns, options.limit)
    _beside(times, Floor.name)


def _exec(runtimes: list[Runtime], options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        contenders: dict[str, Callable[[], object]] = {}
        for runtime in (runtime for runtime in runtimes if runtime.executes):
            runtime.start_many(1, False, 1)
            stack.callback(runtime.remove_many, 1)
            contenders[runtime.name] = runtime.execute
        _beside(measure.in_turns(contenders, options.turns, options.limit), Pycore.name)


def _beside(times: Mapping[str, measure.Times], base: str) -> None:
    """How long each took, also as a multiple of what one of them took."""
    unit = times[base].median if base in times else None
    for name, taken in times.items():
        against = f"{taken.median / unit:8.2f} x" if unit else ""
        print(f"  {name:20} {taken.best * 1e3:8.2f} {taken.median * 1e3:8.2f} {against}", flush=True)


def _many(runtimes: list[Runtime], options: argparse.Namespace) -> None:
    rates: dict[str, float] = {}
    for runtime in (runtime for runtime in runtimes if runtime.many):
        before = measure.held_memory(runtime.residents)
        with _started(runtime, options.count, bridged=False) as (rates[runtime.name], words):
            held = (measure.held_memory(runtime.residents) - before) / options.count
            print(f"  {runtime.name:20} {words} {held / MIB:8.2f} + {before / MIB:.1f}", flush=True)
    _compare(rates)


def _floods(runtimes: list[Runtime], options: argparse.Namespace) -> None:
    """The same program for all, and its rate when nobody reads along, as far as it can get."""
    rates: dict[str, dict[str, float]] = {}
    program = ["/bin/sh", "-c", f"yes {LINE} | head -c {FLOOD}"]
    bare = FLOOD / measure.seconds_of(lambda: run("/bin/sh", "-c", f"{program[-1]} > /dev/null")) / 1e6
    print(f"  {'no container, no log':40} {bare:8.0f} MB/s", flush=True)
    for runtime in runtimes:
        for way, flags in runtime.floods.items():
            before = measure.held_memory(runtime.residents)
            took = min(measure.seconds_of(partial(runtime.flood, flags, program)) for _ in range(2))
            held = (measure.held_memory(runtime.residents) - before) / MIB
            rates.setdefault(runtime.name, {})[way] = FLOOD / took
            print(
                f"  {runtime.name + ', ' + way:40} {FLOOD / took / 1e6:8.0f} MB/s {took:8.2f} s {held:8.2f} MiB",
                flush=True,
            )
    for way, rate in rates.get(Pycore.name, {}).items():
        for name, others in rates.items():
            if name != Pycore.name:
                print(f"  {Pycore.name}, {way}, at {rate / max(others.values()):.1f} x the rate of {name}")


def _networks(runtimes: list[Runtime], options: argparse.Namespace) -> None:
    found: dict[str, float] = {}
    for runtime in (runtime for runtime in runtimes if runtime.many and runtime.bridges):
        with _started(runtime, options.count, bridged=True) as (found[runtime.name], words):
            print(f"  {runtime.name:20} {words}", flush=True)
    rates(found)
    networks(runtimes[0].directory.parent, runtimes[0].root, runtimes, options.count, options.crowd)


def _compare(rates: dict[str, float]) -> None:
    ours = rates.pop(Pycore.name, 0.0)
    if ours and rates:
        times = ", ".join(f"{ours / rate:.1f} x {name}" for name, rate in rates.items())
        print(f"  {Pycore.name} at the rate of {times}")


@contextmanager
def _started(runtime: Runtime, count: int, bridged: bool) -> Iterator[tuple[float, str]]:
    """Many containers, started at the runtime's best parallelism; yields the rate, as a number and in words."""
    workers = _best_workers(runtime, bridged)
    try:
        rate = count / measure.seconds_of(lambda: runtime.start_many(count, bridged, workers))
        at_once = f"({workers} at once)" if workers > 1 else ""
        yield rate, f"{rate:8.1f} /s {at_once:12}"
    finally:
        runtime.remove_many(count)


def _best_workers(runtime: Runtime, bridged: bool) -> int:
    if len(runtime.workers) == 1:
        return runtime.workers[0]
    took: dict[int, float] = {}
    for workers in runtime.workers:
        took[workers] = measure.seconds_of(lambda workers=workers: runtime.start_many(TRIAL, bridged, workers))
        runtime.remove_many(TRIAL)
    return min(took, key=lambda workers: took[workers])


_PARTS: dict[str, Callable[[list[Runtime], argparse.Namespace], None]] = {
    "start": _start,
    "exec": _exec,
    "many": _many,
    "floods": _floods,
    "networks": _networks,
}
"""The parts that compare runtimes."""

if __name__ == "__main__":
    main()
