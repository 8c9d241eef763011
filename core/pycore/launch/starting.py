"""A process between clone and exec, as the engine's side sees it: the other end of the child's channel."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass, field

from pycore.errors import PycoreError, StartError, from_json
from pycore.launch.channel import Channel


@dataclass(eq=False)
class Launched:
    """The real :class:`~pycore.launch.launcher.Starting`."""

    name: str
    channel: Channel
    pid: int = 0
    pidfd: int = -1
    """The caller's to close."""
    is_inside: bool = False
    """Whether it has said so; one that is taken over said it to somebody else."""
    waits: bool = True
    """Whether it waits for words of ours; one more process of a container goes on by itself."""
    _terminal: int = -1
    _error: PycoreError | None = field(default=None)

    def wait_clone(self) -> bool:
        """Until the process exists; False where the spawner was gone before it could say so. Raises StartError."""
        while not self.pid and self._listen():
            pass
        if not self.pid and self._error:
            raise self._error
        return self.pid > 0

    def cut(self) -> None:
        """The spawner is gone: nobody who waits for its answer waits any longer, and no child of this goes on."""
        with contextlib.suppress(OSError):
            self.channel.socket.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> bool:
        """Take one frame, of the spawner or of the child, in whatever order they come; False when both are done."""
        received = self.channel.receive()
        if received is None:
            return False
        message, fds = received
        if "launched" in message and self.pidfd < 0:
            self.pid, self.pidfd = message["launched"], fds.pop()
        elif "entered" in message:
            self.is_inside = True
            self._terminal = fds.pop() if fds else -1
        elif "error" in message:
            self._error = from_json(message["error"])
        for fd in fds:
            os.close(fd)
        return True

    def mapped(self) -> None:
        if self.waits:
            self._say("mapped")

    def entered(self) -> int:
        while not self.is_inside and self._listen():
            pass
        if not self.is_inside:
            raise self._error or self._ended()
        terminal, self._terminal = self._terminal, -1
        return terminal

    def go(self) -> None:
        said = not self.waits or self._say("go")
        while self._listen():
            pass
        self.channel.close()
        if self._error:
            raise self._error
        if not said:
            raise self._ended()

    def _ended(self) -> StartError:
        return StartError(f"{self.name}: its process was ended before it became the program")

    def _say(self, word: str) -> bool:
        try:
            self.channel.send({word: True})
        except (BrokenPipeError, ConnectionResetError):  # it failed: what it said is still to be read
            return False
        return True

    def close(self) -> None:
        self.channel.close()

    def abandon(self) -> PycoreError | None:
        if self.pidfd >= 0:
            send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(OSError, ValueError):
            while self._listen():
                pass
        self.channel.close()
        if self._terminal >= 0:
            os.close(self._terminal)
        return self._error


def send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2); a process that has ended is fine."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)
