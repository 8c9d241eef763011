"""This very process in the place of a container, for probes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Here:
    """This very process in the place of a container: its network and its root are the host's."""

    pid: int = field(default_factory=os.getpid)
    pidfd: int = field(default_factory=lambda: os.pidfd_open(os.getpid()))

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, bytes]:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return None, error.stdout or b""
        return done.returncode, done.stdout
