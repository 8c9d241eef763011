"""Processes that run an engine on the real kernel and kill themselves at a chosen moment; the host before and after.

Each trial is a fork of this process, which has everything imported already, so that it takes a tenth of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycore.doctor import amiss
from pycore.engine import Engine
from pycore.hookspecs import Host
from pycore.life.execute import Executor
from pycore.linux import nftables
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.plan import identity
from pycore.plugins import Plugins
from pycore.source.load import load_source
from pycore.spec import App

Source = dict[str, Any]
Act = Callable[[Engine], object]

PATIENCE = 60.0
"""Seconds that a trial may take; one that hangs is a failure."""

GENERATIONS = range(1, 9)
"""How often a container is made in a trial, at most: its ids follow from that."""


@dataclass
class Moments:
    """The moments at which a process could die, counted; at one of them it does."""

    deadly: int = 0
    """The number of the moment; 0 to live on."""
    passed: list[str] = field(default_factory=list[str])
    """What was about to happen. The moment after it is the one before the next: nothing is between them."""
    counting: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self, what: str) -> None:
        """One of them."""
        with self._lock:
            if not self.counting:
                return
            self.passed.append(what)
            if len(self.passed) == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    def around(self, owner: Any, name: str) -> None:
        """A moment before each call of a method."""
        method = getattr(owner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.tick(f"before {name}")
            return method(*arguments, **keywords)

        setattr(owner, name, call)

    def at_boundary(self, when: str, operation: Operation) -> None:
        """What an executor calls."""
        if when == "before":
            self.tick(f"before {operation.explain()}")


@dataclass
class Place:
    """Directories of a run of trials, and what is seen there and on the host of what they have made."""

    base: Path
    plugins: Plugins

    @property
    def host(self) -> Host:
        return Host(Look(), self.base / "run", self.base / "data")

    def engine(self, moments: Moments | None = None) -> Engine:
        """An engine, with all its moments noted."""
        moments = moments or Moments()
        engine = Engine(
            self.base / "run", self.base / "data", plugins=self.plugins, starts=1,
            executor=Executor(on_boundary=moments.at_boundary),
        )  # fmt: skip
        for name in ("write", "forget", "write_app", "forget_app", "clear_exit"):
            moments.around(engine.state, name)
        launcher = engine.open().launcher
        for name in ("launch", "kill"):
            moments.around(launcher, name)
        return engine

    def app(self, source: Source) -> App:
        return load_source(source, directory=self.base, plugins=self.plugins)

    def snapshot(self, names: tuple[str, ...]) -> set[str]:
        """All that this pycore has on the host, and its files, but for what stays on purpose."""
        instance, look = self.host.instance, Look()
        ids = {identity(instance, name, number) for name in names for number in GENERATIONS}
        found = {f"mount {point}" for point, _ in look.mounts() if point.startswith(f"{self.base}/")}
        found |= {
            f"link {link}" for link in look.links() if link[2:] in ids or look.link_master(link) in self.bridges()
        }
        found |= {f"link {link}" for link in look.links() if link in self.bridges()}
        found |= {f"cgroup {path}" for path in self._cgroups(instance)}
        found |= {f"nft {line}" for line in nftables.listing("tables").splitlines() if line.endswith(f" {instance}")}
        found |= {f"process {pid}" for pid in self.processes()}
        return found | {f"file {path}" for path in self._files()}

    def bridges(self) -> set[str]:
        from pycore_network.networks import bridge_of

        return {bridge_of(self.host, name) for name in ("shop_default", "run")}

    @staticmethod
    def _cgroups(instance: str) -> Iterator[str]:
        for root in ("/sys/fs/cgroup", *(f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup"))):
            if os.path.isdir(f"{root}/{instance}"):
                yield from (path for path, _, _ in os.walk(f"{root}/{instance}"))

    def processes(self) -> Iterator[int]:
        """Spawners of this run dir, and what they have started, wherever it is by now."""
        found: set[int] = set()
        parents: dict[int, int] = {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                state, parent = _read(pid, "stat").rpartition(")")[2].split()[:2]
                parents[pid] = int(parent)
                spawner = str(self.base / "run") in _read(pid, "cmdline").split("\0")
                if state != "Z" and (spawner or f"/{self.host.instance}/" in _read(pid, "cgroup")):
                    found.add(pid)
        yield from found
        yield from (pid for pid, parent in parents.items() if parent in found and pid not in found)

    def _files(self) -> Iterator[str]:
        kept = (
            "data/volumes", "data/cache", "run/events", "run/lock", "run/boot", "run/starting", "run/spawners",
            "data/images/blobs", "data/images/layers", "data/images/index.json", "data/images/oci-layout",
            "data/images/lock", "data/images/names.lock", "data/images/sweep.lock",
        )  # fmt: skip
        for directory, _, names in os.walk(self.base):
            place = os.path.relpath(directory, self.base)
            if place.startswith("image") or place.startswith(kept):
                continue
            yield from (path for name in names if not (path := f"{place}/{name}").startswith((*kept, "./")))
            if place.startswith(("run/containers/", "data/containers/", "run/networks/", "data/images/ingest/")):
                yield place

    def spawners_gone(self) -> None:
        """Wait until no process of ours is left: a spawner ends by itself when nobody needs it."""
        for pid in list(self.processes()):
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                ended = select.select([fd], [], [], 5)[0]
                os.close(fd)
                assert ended, f"process {pid} stays: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")


def in_child(act: Callable[[], object]) -> tuple[int, Any]:
    """Do something in a fork of this process: how it ended (a signal negative), and what was returned."""
    answer, question = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(act, question)
    os.close(question)
    pidfd = os.pidfd_open(pid)
    if not select.select([pidfd], [], [], PATIENCE)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    with open(answer, "rb") as file:
        data = file.read()
    return os.waitstatus_to_exitcode(status), json.loads(data) if data else None


def _become(act: Callable[[], object], question: int) -> None:
    """In the child: nothing of the test run goes on here, whatever happens."""
    status = 1
    try:
        result = act()
        os.write(question, json.dumps(result, default=str).encode())
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(status)


def not_amiss(engine: Engine) -> None:
    """Assert that the host is as the records say, and has nothing beside."""
    life = engine.open()
    for live in list(life.live.values()):
        # One that was killed before its program ends by itself a moment later, with a start that was not decided.
        assert not (live.exited.is_set() or live.failed) or live.settled.wait(10)
    found = [finding.what for finding in amiss(engine, life)]
    assert not found, found
