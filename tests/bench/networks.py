"""The part ``networks``: what bridged containers cost and how fast they are, each figure beside what is asked of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from measure import seconds_of
from runtimes import FIRST_PORT, Docker, Pycore, Runtime, run

ASKED = {"docker": 20.0, "podman": 12.0}
"""Of how many times the rate of others pycore is to start bridged containers."""
SETUPS = 60
"""Containers whose network is set up beside raw netlink."""
CONNECTS = 3000
ROUNDS = 7
SECONDS = 2
"""Of each throughput test."""
SERVER_PORT, IPERF_PORT = 7000, 5201
OUTSIDE = "198.51.100.1"
"""An address of the host that is none of its loopback's (RFC 5737)."""


def verdict(words: str, figure: float, bound: float, *, least: bool = False) -> None:
    """A figure beside what is asked."""
    good = figure >= bound if least else figure <= bound
    side = "at least" if least else "at most"
    print(f"  {words:52} {figure:8.2f} ({side} {bound}) {'as asked' if good else 'NOT as asked'}", flush=True)


def rates(found: dict[str, float]) -> None:
    """How many times the rate of each other runtime pycore's is."""
    for name, times in ASKED.items():
        if name in found and Pycore.name in found:
            verdict(f"rate beside {name}'s best", found[Pycore.name] / found[name], times, least=True)


def networks(directory: Path, root: Path, runtimes: Sequence[Runtime], few: int, many: int) -> None:
    """All but the rates."""
    _set_up(directory, root)
    _crowd(directory, root, few, many)
    engines = [runtime for runtime in runtimes if runtime.name in (Docker.name, Pycore.name)]
    _speed(directory, root, engines)


# -- set-up beside raw netlink -----------------------------------------------------------------------------


def _set_up(directory: Path, root: Path) -> None:
    """The same devices, addresses, routes and bridge port, by pycore's operations and by messages made before."""
    import pycore
    from pycore.linux.kernel import Kernel
    from pycore.ops import Context
    from pycore.steps import Step

    place = directory / "setup"
    place.mkdir()
    text = 'name = "setup"\n' + "".join(
        f'[container.c{number}]\nimage = "{root}"\ncommand = ["/bin/sleep", "1"]\n' for number in range(SETUPS)
    )
    with pycore.Engine(run_dir="/run/bench-pycore-setup", data_dir=place / "data") as engine, ExitStack() as stack:
        plan = engine.plan(engine.load_text(text))
        kernel, ours, theirs = Kernel(), list[float](), list[float]()
        floor = _Floor()
        stack.callback(floor.close)
        done: list[tuple[Context, list[pycore.Operation]]] = []
        for number, action in enumerate(plan.actions):
            wanted = [each for each in action.do if each.step in (Step.NETWORK, Step.LINK)]
            pids = [stack.enter_context(_namespace()) for _ in range(2)]
            ctx = Context(kernel, action.container, pid=pids[0])
            done.append((ctx, wanted))
            messages = floor.messages(number)
            sides = [
                (ours, lambda wanted=wanted, ctx=ctx: [each.do(ctx) for each in wanted]),
                (theirs, lambda messages=messages, pid=pids[1]: floor.send(messages, pid)),
            ]
            for times, act in sides if number % 2 else sides[::-1]:  # the first after a pause pays for the pause
                times.append(seconds_of(act))
        for ctx, operations in done:
            for each in reversed(operations):
                each.undo(ctx)
    for words, times in (("raw batched netlink", theirs), ("pycore's operations", ours)):
        print(f"  set-up of one network, {words:28} {median(times[2:]) * 1e3:8.2f} ms", flush=True)
    verdict("set-up beside raw netlink", median(ours[2:]) / median(theirs[2:]), 1.5)


class _Floor:
    """A bridge, and the messages that put a container into it."""

    bridge = "bench-floor"

    def __init__(self) -> None:
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "add", "10.99.0.1/22", "dev", self.bridge)
        run("ip", "address", "add", "fd99::1/64", "dev", self.bridge, "nodad")
        run("ip", "link", "set", self.bridge, "up")
        self.index = int(Path(f"/sys/class/net/{self.bridge}/ifindex").read_text())

    def messages(self, number: int) -> tuple[list[bytes], list[bytes]]:
        """Those for the container's namespace, and those for the host's."""
        from threading import get_native_id

        from pycore_network import links

        address, peer = f"10.99.1.{number + 1}", f"floor{number}"
        eth0 = links.index_of("eth0")
        inside = [
            links.make_veth("eth0", links.mac_of(address), 1500, peer, 7, get_native_id()),
            *links.settle("eth0", (f"{address}/22", f"fd99::{number + 2:x}/64")),
            links.default_route("10.99.0.1", eth0),
            links.default_route("fd99::1", eth0),
        ]
        return inside, [links.join_bridge(peer, self.index)]

    @staticmethod
    def send(messages: tuple[list[bytes], list[bytes]], pid: int) -> None:
        from pycore.linux import netlink

        inside, outside = messages
        netlink.send(inside, pid)
        netlink.send(outside)

    def close(self) -> None:
        run("ip", "link", "delete", self.bridge)


@contextmanager
def _namespace() -> Iterator[int]:
    """A process in a network namespace of its own."""
    own = os.readlink("/proc/self/ns/net")
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as process:
        try:
            while os.readlink(f"/proc/{process.pid}/ns/net") == own:
                time.sleep(0.001)
            yield process.pid
        finally:
            process.kill()


# -- a thousand --------------------------------------------------------------------------------------------


class Crowd(Pycore):
    """A run dir of its own."""

    name = "pycore, networks"
    run_dir = "/run/bench-pycore-networks"


def _crowd(directory: Path, root: Path, few: int, many: int) -> None:
    os.environ["PYCORE_LINGER"] = "60"
    pycore = Crowd(directory, root)
    pycore.command("ps")
    times: dict[int, float] = {}
    for count in (10, few, many, few, many):
        took = seconds_of(lambda count=count: pycore.start_many(count, bridged=True, workers=1)) / count
        pycore.remove_many(count)
        times[count] = min(times.get(count, took), took)
    for count in (few, many):
        print(f"  one of {count} bridged containers {times[count] * 1e3:36.2f} ms", flush=True)
    verdict("time for each, many against few", times[many] / times[few], 1.3)


# -- connections and throughput ----------------------------------------------------------------------------


def _speed(directory: Path, root: Path, engines: Sequence[Runtime]) -> None:
    """Servers of all in turns, so that what else the host does meets each alike; the best of each counts."""
    if not _has_iperf(root):
        print("  iperf3 is not installed: nothing is said of throughput", flush=True)
    run("ip", "link", "add", "bench-out", "type", "bridge")
    run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "bench-out")
    run("ip", "link", "set", "bench-out", "up")
    best: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        sides = [stack.enter_context(_pair(runtime, port)) for port, runtime in enumerate(engines)]
        for _ in range(ROUNDS):
            for side in sides:
                for what, act in side.tests(_has_iperf(root)).items():
                    figure = act()
                    before = best.setdefault(what, {}).get(side.runtime.name, figure)
                    best[what][side.runtime.name] = (min if what in _TIMES else max)(before, figure)
    for what, figures in best.items():
        told = ", ".join(f"{name} {figure:.2f}" for name, figure in figures.items())
        print(f"  {what}: {told}", flush=True)
        if {Pycore.name, Docker.name} <= {*figures}:
            ours, theirs = figures[Pycore.name], figures[Docker.name]
            if what in _TIMES:
                verdict(f"{what}, beside docker's", ours / theirs, 1.03)
            else:
                verdict(f"{what}, beside docker's", ours / theirs, 0.97, least=True)


_TIMES = ("connect, container to container (µs)", "connect, host to published port (µs)")
_RATES = ("throughput, container to container (Gbit/s)", "throughput, host to published port (Gbit/s)")


def _has_iperf(root: Path) -> bool:
    return (root / "bin/iperf3").exists()


class _Side:
    """Two containers of one runtime: a server with published ports, and a client."""

    def __init__(self, runtime: Runtime, ports: tuple[int, int], address: str) -> None:
        self.runtime, self.ports, self.address = runtime, ports, address

    def tests(self, iperf: bool) -> dict[str, Callable[[], float]]:
        published, published_iperf = self.ports
        found = {
            _TIMES[0]: lambda: self._connect(self._inside, self.address, SERVER_PORT),
            _TIMES[1]: lambda: self._connect(run, OUTSIDE, published),
        }
        if iperf:
            found |= {
                _RATES[0]: lambda: self._throughput(self._inside, self.address, IPERF_PORT),
                _RATES[1]: lambda: self._throughput(run, OUTSIDE, published_iperf),
            }
        return found

    def _inside(self, *words: object) -> str:
        return self.runtime.inside("client", *words)

    def _connect(self, act: Callable[..., str], address: str, port: int) -> float:
        program = "/bin/connect" if act == self._inside else self.runtime.root / "bin/connect"
        return float(act(program, address, port, CONNECTS))

    def _throughput(self, act: Callable[..., str], address: str, port: int) -> float:
        said = act("/bin/iperf3" if act == self._inside else "iperf3", "-c", address, "-p", port, "-t", SECONDS, "-J")
        return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _pair(runtime: Runtime, number: int) -> Iterator[_Side]:
    ports = (FIRST_PORT + 9000 + 2 * number, FIRST_PORT + 9001 + 2 * number)
    script = f"/bin/connect server {SERVER_PORT} & exec sleep 6000"
    if _has_iperf(runtime.root):
        script = f"/bin/iperf3 -s -D; {script}"
    address = runtime.pair(script, [f"{ports[0]}:{SERVER_PORT}", f"{ports[1]}:{IPERF_PORT}"])
    time.sleep(1)  # the servers are there
    try:
        yield _Side(runtime, ports, address)
    finally:
        runtime.remove_pair()
