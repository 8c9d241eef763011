"""The spawner: tiny, single-threaded, parent of all containers of one run dir.

It clones, waits, and writes exit statuses to the run dir, so that whoever asked can die at any moment and
nothing is lost. It holds what the containers' logs are read from, and hands it to whoever comes next.
It ends when nobody talks to it and it has no containers left.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycore.errors import PycoreError, StartError
from pycore.launch import child, inside
from pycore.launch.channel import Channel
from pycore.launch.namespaces import clone_flags
from pycore.launch.request import Request
from pycore.linux import libc
from pycore.linux.kernel import Kernel
from pycore.ops import Context

EXIT_FILE = "exit.json"


@dataclass
class Living:
    """A container's first process, and the read ends of its output."""

    id: str
    outputs: list[int] = field(default_factory=list[int])


class Spawner:
    """The loop. ``listener`` is where a new supervisor knocks, ``control`` the one that started us."""

    def __init__(self, run_dir: Path, listener: socket.socket, control: Channel) -> None:
        self.run_dir = run_dir
        self.listener = listener
        self.control: Channel | None = control
        self.living: dict[int, Living] = {}
        self.ended: list[tuple[dict[str, Any], list[int]]] = []
        """Ends that nobody has heard of yet, with output that may still be in the pipes."""
        self.selector = selectors.DefaultSelector()
        self.wakeup, self._signalled = socket.socketpair()
        for end in (self.wakeup, self._signalled):
            end.setblocking(False)

    def run(self) -> None:
        """Serve until there is neither somebody to talk to nor a container."""
        signal.signal(signal.SIGCHLD, _wake_up)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._reap)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        if self.control:
            self.selector.register(self.control, selectors.EVENT_READ, self._serve)
        while self.control or self.living or self.ended:
            for key, _ in self.selector.select():
                key.data()

    def _accept(self) -> None:
        """A new supervisor takes the place of the one before it."""
        connection, _ = self.listener.accept()
        self._hang_up()
        self.control = Channel(connection)
        self.selector.register(self.control, selectors.EVENT_READ, self._serve)

    def _hang_up(self) -> None:
        if self.control:
            self.selector.unregister(self.control)
            self.control.close()
            self.control = None

    def _serve(self) -> None:
        assert self.control is not None
        try:
            received = self.control.receive()
        except (OSError, ValueError):
            received = None
        if received is None:
            self._hang_up()
            return
        message, fds = received
        if "launch" in message:
            self._launch(message["launch"], fds)
        elif "adopt" in message:
            self._hand_over()

    def _hand_over(self) -> None:
        """Tell a new supervisor what lives, one frame each with the read ends of its output."""
        for pid, living in self.living.items():
            pidfd = os.pidfd_open(pid)  # it cannot be another's: we have not waited for it yet
            self._tell({"living": living.id, "pid": pid}, [pidfd, *living.outputs])
            os.close(pidfd)
        while self.ended:
            report, outputs = self.ended[0]
            if not self._tell({"living": report["exited"], "pid": 0, **report}, outputs):
                return
            del self.ended[0]
            _close(outputs)
        self._tell({"adopted": len(self.living)})

    def _launch(self, fields: dict[str, Any], fds: list[int]) -> None:
        """Clone a container. ``fds``: stdin, stdout, stderr, the child's channel, then outputs to be kept."""
        stdio, outputs = fds[:3], fds[4:]
        channel = Channel(socket.socket(fileno=fds[3]))
        ctx = Context(Kernel(), container=fields["name"], environment=dict(fields["environment"]))
        try:
            request = Request.from_json(fields)
            flags = clone_flags(request.operations)
            if flags & libc.CLONE_NEWUSER:
                inside.take_hold_outside(request, ctx)
            pid, pidfd = libc.clone3(flags)
            if pid == 0:
                signal.set_wakeup_fd(-1)
                child.become(request, ctx, channel, stdio, bool(flags & libc.CLONE_NEWUSER))
            self.living[pid] = Living(request.id, outputs)
            channel.send({"launched": pid}, [pidfd])
            os.close(pidfd)
        except Exception as error:  # an operation's module that cannot be imported, no more processes, ...
            _close(outputs)
            with contextlib.suppress(OSError):
                failure = StartError(f"{fields['name']}: cannot be cloned: {error}", step="namespaces")
                channel.send({"error": (error if isinstance(error, PycoreError) else failure).to_json()})
        finally:
            channel.close()
            _close((*stdio, *ctx.held.values()))

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.wakeup.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            living = self.living.pop(pid, None)
            if living is not None:
                self._ended(living, status)

    def _ended(self, living: Living, status: int) -> None:
        """Write the exit status down before anybody is told, then let go of the output."""
        report = {"exited": living.id, "status": os.waitstatus_to_exitcode(status), "time": time.time()}
        with contextlib.suppress(OSError):  # the run dir is gone: nobody will ask
            place = self.run_dir / "containers" / living.id / EXIT_FILE
            temporary = f"{place}.new"
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(report, file)
                file.write("\n")
            os.rename(temporary, place)
        if self._tell(report):
            _close(living.outputs)
        else:
            self.ended.append((report, living.outputs))

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        if self.control is None:
            return False
        try:
            self.control.send(message, fds)
        except OSError:
            self._hang_up()
            return False
        return True


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _wake_up(*_: object) -> None:
    """A handler of our own, so that SIGCHLD is not ignored and the wake-up descriptor is written to."""


def main() -> None:
    """Entered by a fresh interpreter: descriptor 3 is the control channel, 4 the listener, argv[1] the run dir."""
    libc.prctl(libc.PR_SET_NAME, libc.address_of(b"pycore-spawner"))
    os.chdir("/")
    listener = socket.socket(fileno=4)
    control = Channel(socket.socket(fileno=3))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child.ignored_signals()
    gc.freeze()
    Spawner(Path(sys.argv[1]), listener, control).run()
