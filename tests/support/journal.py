"""A journal of a test's own: a real systemd-journald, in a mount namespace where the host's journal is not seen."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

from support.command import Command

DAEMONS = ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")

PATIENCE = 20.0

_SCRIPT = """set -e
for place in /run/systemd /run/log; do mkdir -p $place; mount -t tmpfs tmpfs $place; done
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
cat > /run/systemd/journald.conf.d/own.conf <<END
[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
RateLimitBurst=0
END
exec "$0"
"""


def daemon() -> str:
    """The journal's program; empty where there is none."""
    return next((path for path in DAEMONS if os.access(path, os.X_OK)), "")


class OwnJournal:
    """A journal that runs until :meth:`end`, in a mount namespace that goes with it."""

    def __init__(self, directory: Path) -> None:
        self._place = directory / "notify"
        self._process = self._start(["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT])
        self._namespace = os.open(f"/proc/{self._process.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def _start(self, words: list[str]) -> subprocess.Popen[bytes]:
        """Start the journal, and wait until it says that it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(self._place))
            told.settimeout(PATIENCE)
            process = subprocess.Popen(
                [*words, daemon()], env=os.environ | {"NOTIFY_SOCKET": str(self._place)}, stdin=subprocess.DEVNULL
            )
            try:
                while b"READY=1" not in told.recv(4096):
                    pass
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                self._place.unlink()
        return process

    def _entered(self, *flags: str) -> list[str]:
        """What comes before a command that is to see this journal."""
        return ["nsenter", *flags, f"--mount=/proc/{os.getpid()}/fd/{self._namespace}", "--"]

    def inside(self, pycore: Command) -> Command:
        """The command, where it sees this journal."""
        # Joining a mount namespace leads to its root directory; the command is to be where it would have been.
        words = shlex.join([*self._entered(f"--wd={pycore.directory}"), str(pycore.program)])
        program = pycore.directory / "pycore-with-journal"
        program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        program.chmod(0o700)
        return replace(pycore, program=program)

    def journalctl(self, *words: str) -> str:
        """What the journal's own program prints of it."""
        words = (*self._entered(), "journalctl", "--no-pager", "--quiet", *words)
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    def start_anew(self) -> None:
        """End it, and start another in its place; what was written stays."""
        self._stop()
        self._process = self._start(self._entered())

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)

    def end(self) -> None:
        """End it; what was written goes with it."""
        self._stop()
        os.close(self._namespace)
