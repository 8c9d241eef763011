"""The ``pycore`` command in a test: with directories of its own, and everything taken down at the end."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("pycore")


def on_host(directory: Path, host: int) -> Command:
    """The command on a host with a network of its own, that of a process."""
    program = directory / "pycore"
    program.write_text(f'#!/bin/sh\nexec nsenter -t {host} --net {PROGRAM} "$@"\n')
    program.chmod(0o755)
    return Command(directory, program)


@dataclass
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


@dataclass
class Command:
    """``pycore`` with state of its own below a directory."""

    directory: Path
    program: Path = PROGRAM
    environment: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def run_dir(self) -> Path:
        return self.directory / "run"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def env(self) -> dict[str, str]:
        own = {"PYCORE_RUN_DIR": str(self.run_dir), "PYCORE_DATA_DIR": str(self.data_dir), "PYCORE_LINGER": "5"}
        return os.environ | own | self.environment

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [self.program, *words], cwd=self.directory, env=self.env(), text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options,
        )  # fmt: skip

    def run(self, *words: str, **options: Any) -> Done:
        """Run a command, whatever comes of it."""
        process = self.popen(*words, **options)
        out, err = process.communicate(timeout=60)
        return Done(process.returncode, out, err)

    def __call__(self, *words: str, status: int = 0, **options: Any) -> str:
        """Run a command that ends with ``status``; what it printed."""
        done = self.run(*words, **options)
        assert done.status == status, f"pycore {' '.join(words)}: {done}"
        assert "Traceback" not in done.err
        return done.out

    def fails(self, *words: str, status: int = 1) -> str:
        """Run a command that fails with ``status``; what it said."""
        done = self.run(*words)
        assert done.status == status, f"pycore {' '.join(words)}: {done}"
        assert "Traceback" not in done.err + done.out
        assert done.err
        return done.err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def write(self, text: str, name: str = "app.toml") -> str:
        """A spec in the test's directory; its path."""
        file = self.directory / name
        file.write_text(text, encoding="utf-8")
        return str(file)

    def supervisor(self) -> int:
        """The supervisor's process id; 0 where none is there."""
        try:
            lock = os.open(self.run_dir / "lock", os.O_RDWR)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(lock, 20))
        finally:
            os.close(lock)
        return 0

    def end(self) -> None:
        """Take down every app, then the supervisor."""
        if not self.run_dir.exists():
            return
        for app in {name.partition("/")[0] for name in self.run("ps", "-a", "-q").out.split()}:
            self("down", "-t", "0", app)
        pid = self.supervisor()
        if pid:
            pidfd = os.pidfd_open(pid)
            os.kill(pid, 15)
            assert wait_readable(pidfd, 20), "the supervisor does not end"
            os.close(pidfd)


def wait_readable(fd: int, seconds: float) -> bool:
    """Wait for a descriptor: a pidfd is readable once its process has ended."""
    import select

    return bool(select.select([fd], [], [], seconds)[0])
