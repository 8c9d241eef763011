"""Launchers and spawners in a test, without an engine above them: containers of nothing but namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pycore.launch.launcher import Adopted, SpawnerLauncher, Starting, Stdio, start_time
from pycore.launch.namespaces import Namespaces
from pycore.launch.request import Request
from pycore.ops import Operation

from support.command import wait_readable

PATIENCE = 30.0
ALL = ("mount", "pid", "uts", "ipc", "network")


def request(identity: str, *argv: str, operations: Sequence[Operation] = (), **more: Any) -> Request:
    environment = {"PATH": os.environ["PATH"]}
    return Request(identity, f"t/{identity}", tuple(operations), argv, environment, **more)


class Launching:
    """A launcher, what it has told, and all that was started through it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.ends: dict[str, int | None] = {}
        self.told: list[str] = []
        self._news = threading.Condition()
        self._pidfds: list[int] = []
        self._launcher: SpawnerLauncher | None = None
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    @property
    def launcher(self) -> SpawnerLauncher:
        if self._launcher is None:
            (self.run_dir / "containers").mkdir(parents=True, exist_ok=True)
            self._launcher = SpawnerLauncher(self.run_dir, self._on_exit)
        return self._launcher

    def _on_exit(self, identity: str, status: int | None, _: float) -> None:
        with self._news:
            self.ends[identity] = status
            self.told.append(identity)
            self._news.notify_all()

    def adopt(self, known: Iterable[tuple[str, int, int]] = ()) -> dict[str, Adopted]:
        found = {each.id: each for each in self.launcher.adopt(known)}
        self._pidfds += [each.pidfd for each in found.values() if each.pidfd >= 0]
        return found

    def launch(
        self, identity: str, *argv: str, kinds: Sequence[str] = ALL, hold: bool = False, stdio: Stdio | None = None,
        operations: Sequence[Operation] = (), **more: Any,
    ) -> Starting:  # fmt: skip
        """Clone, and no further."""
        (self.run_dir / "containers" / identity).mkdir(parents=True, exist_ok=True)
        wanted = request(identity, *argv, operations=[Namespaces(tuple(kinds)), *operations], **more)
        starting = self.launcher.launch(wanted, stdio or self.stdio(), hold=hold)
        self._pidfds.append(starting.pidfd)
        return starting

    def start(self, identity: str, *argv: str, **more: Any) -> Starting:
        starting = self.launch(identity, *argv, **more)
        starting.mapped()
        starting.go()
        return starting

    def execute(
        self, target: Starting | Adopted, identity: str, *argv: str, stdio: Stdio | None = None, **more: Any
    ) -> Starting:
        starting = self.launcher.execute(request(identity, *argv, **more), target.pidfd, stdio or self.stdio())
        self._pidfds.append(starting.pidfd)
        starting.go()
        return starting

    def output(self, target: Starting | Adopted, identity: str, *argv: str, **more: Any) -> str:
        """What one more process in a container prints; how it ends is in ``ends``."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self.execute(target, identity, *argv, stdio=replace(self.stdio(), stdout=write, stderr=write), **more)
        finally:
            os.close(write)
        with open(read, encoding="utf-8") as file:
            text = file.read()
        self.ended(identity)
        return text

    def stdio(self) -> Stdio:
        return Stdio(self._null, self._null, self._null)

    def ended(self, identity: str) -> int | None:
        """How something ended, as the launcher told it."""
        with self._news:
            assert self._news.wait_for(lambda: identity in self.ends, PATIENCE), f"{identity}: no end was told"
            return self.ends[identity]

    def written(self, identity: str) -> int | None:
        """How a container ended, as the run dir says."""
        fields = json.loads((self.run_dir / "containers" / identity / "exit.json").read_text())
        assert fields["exited"] == identity
        assert fields["time"] > 0
        status: int | None = fields["status"]
        return status

    def spawners(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.run_dir / "spawners").glob("*.sock"))

    def kill_spawners(self) -> None:
        for pid in self.spawners():
            kill(pid)

    def close(self) -> None:
        """The launcher lets go; everything runs on."""
        if self._launcher:
            self._launcher.close()
            self._launcher = None

    def end(self) -> None:
        """Nothing runs on, and no spawner is left."""
        for pidfd in self._pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self.close()
        self.kill_spawners()  # one that an end was not told to waits for somebody who asks
        os.close(self._null)


def pidfd_open(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process has ended, whoever's child it is."""
    pidfd = pidfd_open(pid)
    if pidfd < 0:
        return
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert wait_readable(pidfd, PATIENCE)
    os.close(pidfd)


class Victim:
    """Another process with a launcher, to be killed. Its script has ``yard``, and says things with ``tell``."""

    def __init__(self, run_dir: Path, script: str) -> None:
        prologue = (
            "import json, sys; from pathlib import Path; from pycore.launch.launcher import start_time; "
            f"sys.path[:] = {sys.path!r}; from support.launching import Launching; "
            f"yard = Launching(Path({str(run_dir)!r})); tell = lambda *words: print(json.dumps(words), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{prologue}{script}\nsys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def heard(self) -> Any:
        """The next that it tells."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def known(identity: str, pid: int) -> tuple[str, int, int]:
    """What a record would say of a container that runs."""
    return identity, pid, start_time(pid)
