"""A person at a terminal: types, reads what is shown, and knows how the terminal was set before."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

from support.command import Command


class Person:
    """Runs one command in a terminal of its own."""

    def __init__(self, command: Command, *words: str, size: tuple[int, int] = (24, 80)) -> None:
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, size)
        self.before = self.settings()
        self.seen = b""
        self.process = subprocess.Popen(
            [command.program, *words], cwd=command.directory, env=command.env(),
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def settings(self) -> Sequence[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self.slave)

    @property
    def is_raw(self) -> bool:
        """Whether keys go to the program as they are."""
        return not self.settings()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, text: str | bytes) -> None:
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def sees(self, pattern: str, seconds: float = 20) -> re.Match[bytes]:
        """Wait until something is shown; what was shown before it is forgotten."""
        deadline = time.monotonic() + seconds
        wanted = re.compile(pattern.encode(), re.DOTALL)
        while True:
            found = wanted.search(self.seen)
            if found:
                self.seen = self.seen[found.end() :]
                return found
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} is not shown, but {self.seen!r}")
            self.seen += os.read(self.master, 1 << 16)

    def resize(self, rows: int, columns: int) -> None:
        """Make the window another size, which the kernel tells the command of."""
        termios.tcsetwinsize(self.master, (rows, columns))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, seconds: float = 20) -> int:
        """Wait for the command's end; its exit status."""
        return self.process.wait(seconds)

    def leave(self) -> None:
        """Let go of everything."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
        for fd in (self.master, self.slave):
            os.close(fd)


def until(condition: Any, seconds: float = 20) -> None:
    """Wait for something that nothing tells of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)
