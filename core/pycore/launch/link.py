"""The connection to one spawner: found at its socket, or started."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycore.errors import SupervisorError
from pycore.launch import interpreter, limits
from pycore.launch.address import connect
from pycore.launch.channel import Channel
from pycore.launch.protocol import DIRECTORY
from pycore.launch.starting import Launched


class Link:
    """A spawner and our end of the conversation with it. The lock of the launcher guards all but ``send``."""

    def __init__(self, channel: Channel, child: int = 0) -> None:
        self.channel = channel
        self.child = child
        """Its process id, where we have started it and it has to be waited for."""
        self.fits = child > 0
        """Whether it runs our code, and may be asked for more."""
        self.answered = threading.Event()
        """It has told all that it looks after, or is gone."""
        self.lost = False
        self.waiting: set[Launched] = set()
        """Who waits for a process that this spawner was asked for."""
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Say something; several threads do. Raises OSError where the spawner is gone."""
        with self._sending:
            self.channel.send(message, fds)

    def close(self) -> None:
        """Hang up; a spawner that looks after nothing ends then."""
        with contextlib.suppress(OSError):
            self.channel.socket.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        if self.child:
            threading.Thread(target=_reap, args=(self.child,), daemon=True).start()
            self.child = 0


def find(run_dir: Path) -> list[Link]:
    """Every spawner of a run dir that is there. The sockets of those that are not are removed."""
    found: list[Link] = []
    directory = run_dir / DIRECTORY
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return found
    for name in names:
        sock = connect(directory, name)
        if sock:
            found.append(Link(Channel(sock)))
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / name)
    return found


def start(run_dir: Path) -> Link:
    """Start a spawner. Raises SupervisorError."""
    ours, theirs = Channel.pair()
    stderr = None if os.environ.get("PYCORE_DEBUG") else -1
    environment = {"PATH": os.environ.get("PATH", "")}
    try:
        os.makedirs(run_dir / DIRECTORY, 0o700, exist_ok=True)
        arguments = [str(run_dir), str(limits.for_programs())]
        pid = interpreter.start("pycore.launch.spawner", arguments, [theirs.fileno()], environment, stderr)
    except OSError as error:
        ours.close()
        raise SupervisorError(f"the spawner cannot be started: {error}") from error
    finally:
        theirs.close()
    return Link(ours, pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
