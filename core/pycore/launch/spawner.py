"""The spawner: tiny, single-threaded, parent of all containers of one run dir.

It clones, waits, and writes exit statuses to the run dir, so that whoever asked can die at any moment and
nothing is lost. It keeps descriptors for whoever takes over: what the containers' logs are read from, the
channels of those that wait to be started. It ends when nobody talks to it and it has no containers left.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycore.errors import PycoreError, StartError
from pycore.launch import child, inside, interpreter, limits, protocol
from pycore.launch.address import listen
from pycore.launch.channel import Channel
from pycore.launch.ends import EXIT_FILE as EXIT_FILE
from pycore.launch.ends import End, write_end
from pycore.launch.namespaces import clone_flags
from pycore.launch.request import Request
from pycore.linux import libc
from pycore.linux.cloning import clone_into
from pycore.linux.kernel import Kernel
from pycore.linux.pidfd import Unreaped, exit_status, pid_of
from pycore.ops import Context

NAMESPACES: Mapping[str, int] = {
    "mnt": libc.CLONE_NEWNS,
    "uts": libc.CLONE_NEWUTS,
    "ipc": libc.CLONE_NEWIPC,
    "net": libc.CLONE_NEWNET,
    "user": libc.CLONE_NEWUSER,
    "cgroup": libc.CLONE_NEWCGROUP,
    "time": libc.CLONE_NEWTIME,
    "pid": libc.CLONE_NEWPID,
}
"""The names in /proc/PID/ns; the last is joined before the clone, since a process never changes its own."""

_UNWANTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CALL_NAMESPACES = libc.CLONE_NEWNS | libc.CLONE_NEWUSER
"""What a function joins: enough to see the container's files as it does, and to be nobody in it."""


@dataclass
class Living:
    """A process that this one is the parent of."""

    id: str
    kept: dict[str, int] = field(default_factory=dict[str, int])
    """Descriptors for whoever takes over."""
    more: bool = False
    """Whether it is one more process of a container: then it concerns only who asked for it."""
    pidfd: int = -1
    """Of a process that is another's child: its spawner died. -1 for one of ours."""
    watched: bool = False
    """Whether it is such a one, and the supervisor that gave it to us learns of its end without us."""

    def has_unread(self) -> bool:
        """Whether anything that it has written is still in what is kept; all that is not for reading is let go of."""
        poll = select.poll()
        for fd in self.kept.values():
            poll.register(fd, select.POLLIN)
        unread = {fd for fd, events in poll.poll(0) if events & select.POLLIN}
        for name, fd in list(self.kept.items()):
            if fd not in unread:
                os.close(self.kept.pop(name))
        return bool(unread)

    def close(self) -> None:
        """Let go of all that is kept."""
        _close(self.kept.values())
        self.kept = {}
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass
class Order:
    """A request as it came, with its descriptors."""

    fields: dict[str, Any]
    stdio: list[int]
    channel: Channel
    more: bool
    """Whether it is one more process of a container that runs."""
    target: int
    """A pidfd of that container; for a new one, of one whose network it shares, or -1."""
    kept: dict[str, int]

    @classmethod
    def received(cls, message: Mapping[str, Any], fds: Sequence[int]) -> Order:
        """``fds``: stdin, stdout, stderr, the child's channel, the target if there is one, then what is kept."""
        more = "execute" in message
        target = fds[4] if message["target"] else -1
        stdio, rest = list(fds[:3]), list(fds[5 if message["target"] else 4 :])
        channel = Channel.of(fds[3])
        fields = message["execute" if more else "launch"]
        return cls(fields, stdio, channel, more, target, dict(zip(message["kept"], rest, strict=True)))

    def close(self) -> None:
        """Let go of what only the child needs."""
        self.channel.close()
        _close((*self.stdio, *((self.target,) if self.target >= 0 else ())))


class Spawner:
    """The loop. ``listener`` is where a new supervisor knocks, ``control`` the one that started us."""

    def __init__(self, run_dir: Path, listener: socket.socket, control: Channel) -> None:
        self.run_dir = run_dir
        self.listener = listener
        self.control: Channel | None = control
        self._asked = True
        """Whether whoever talks to us knows what lives; until then an end would mean nothing to it."""
        self.living: dict[int, Living] = {}
        self.ended: list[tuple[dict[str, Any], Living]] = []
        """Ends that nobody has heard of yet, with output that may still be in the pipes."""
        self._fostered = select.epoll()
        """The pidfds of those that are others' children, by which their ends are learned."""
        self.selector = selectors.DefaultSelector()
        self.wakeup, self._signalled = socket.socketpair()
        for end in (self.wakeup, self._signalled):
            end.setblocking(False)
        self._code, self._since = protocol.code(), protocol.stamp()
        self._namespaces = _namespaces("self")

    def run(self) -> None:
        """Serve until there is neither somebody to talk to nor a container."""
        signal.signal(signal.SIGCHLD, _wake_up)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._reap)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self._fostered, selectors.EVENT_READ, self._look_at_fostered)
        if self.control:
            self.selector.register(self.control, selectors.EVENT_READ, self._serve)
        while self.control or self.living or self.ended:
            for key, _ in self.selector.select():
                key.data()

    # -- who talks to us -----------------------------------------------------------------------------------

    def _accept(self) -> None:
        """A new supervisor takes the place of the one before it."""
        connection, _ = self.listener.accept()
        self._hang_up()
        self.control, self._asked = Channel(connection), False
        self.selector.register(self.control, selectors.EVENT_READ, self._serve)

    def _hang_up(self) -> None:
        if self.control:
            self.selector.unregister(self.control)
            self.control.close()
            self.control = None
            for living in self.living.values():
                living.watched = False

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
        if "launch" in message or "execute" in message:
            self._start(Order.received(message, fds))
        elif "adopt" in message:
            self._hand_over()
        elif "keep" in message:
            self._keep(message["keep"], message["name"], fds[0])
        elif "foster" in message:
            self._foster(message, fds)
        elif "release" in message:
            self._release(message["release"], message["name"])

    def _hand_over(self) -> None:
        """Tell a new supervisor what lives, one frame each with what is kept for it."""
        self._asked = True
        for pid, living in self.living.items():
            if living.more:  # nobody is left who asked for it; a terminal that is let go of hangs up
                living.id = ""
                living.close()
                continue
            _forget_if_running(living)
            # A number of a child of ours cannot be another's: we have not waited for it yet.
            pidfd = os.dup(living.pidfd) if living.pidfd >= 0 else os.pidfd_open(pid)
            self._tell({"living": living.id, "pid": pid, "kept": list(living.kept)}, [pidfd, *living.kept.values()])
            os.close(pidfd)
        while self.ended:
            report, living = self.ended[0]
            message = {"living": report["exited"], "pid": 0, "kept": list(living.kept), **report}
            if not self._tell(message, list(living.kept.values())):
                return
            del self.ended[0]
            living.close()
        self._tell(
            {
                "adopted": len(self.living),
                "protocol": protocol.PROTOCOL,
                "code": self._code,
                "replaced": protocol.is_replaced(self._since),
            }
        )

    def _keep(self, identity: str, name: str, fd: int) -> None:
        for living in self.living.values():
            if living.id == identity:
                self._release(identity, name)
                living.kept[name] = fd
                return
        os.close(fd)  # it has ended meanwhile

    def _release(self, identity: str, name: str) -> None:
        for living in self.living.values():
            if living.id == identity and name in living.kept:
                os.close(living.kept.pop(name))

    def _foster(self, message: Mapping[str, Any], fds: list[int]) -> None:
        """Keep what another spawner has kept, which is gone, and be there for the next supervisor in its place."""
        kept = dict(zip(message["kept"], fds[1:], strict=True))
        self.living[message["pid"]] = Living(message["foster"], kept, pidfd=fds[0], watched=True)
        self._fostered.register(fds[0], select.EPOLLIN)

    def _look_at_fostered(self) -> None:
        """One has ended; its status is there when whoever is its parent has waited for it."""
        for fd, events in self._fostered.poll(0, 1):
            pid = next(pid for pid, living in self.living.items() if living.pidfd == fd)
            status = exit_status(fd)
            if isinstance(status, Unreaped):
                if not events & select.EPOLLHUP:
                    self._fostered.modify(fd, 0)
                    return
                status = None
            self._fostered.unregister(fd)
            living = self.living.pop(pid)
            if living.watched:
                living.close()
            else:
                self._ended(living, status)

    # -- starting ------------------------------------------------------------------------------------------

    def _start(self, order: Order) -> None:
        """Clone a process; what becomes of it is said on its own channel."""
        fields = order.fields
        first, count = fields["ids"]
        ctx = Context(Kernel(), fields["name"], root_id=first, id_count=count, environment=dict(fields["environment"]))
        try:
            request = Request.from_json(fields)
            function = request.function() if request.call else None
            if order.more:
                pid, pidfd = self._join(order, request, ctx, function)
            else:
                pid, pidfd = self._launch(order, request, ctx, function)
        except Exception as error:  # an operation's module that cannot be imported, no more processes, ...
            _close(order.kept.values())
            with contextlib.suppress(OSError):
                failure = StartError(f"{fields['name']}: cannot be cloned: {error}", step="namespaces")
                order.channel.send({"error": (error if isinstance(error, PycoreError) else failure).to_json()})
        else:
            self.living[pid] = Living(request.id, order.kept, order.more)
            with contextlib.suppress(OSError):  # who asked is gone; whoever comes next is told
                order.channel.send({"launched": pid}, [pidfd])
            os.close(pidfd)
        finally:
            order.close()
            _close(ctx.held.values())

    @staticmethod
    def _launch(order: Order, request: Request, ctx: Context, function: child.Function | None) -> tuple[int, int]:
        flags = clone_flags(request.operations)
        maps = bool(flags & libc.CLONE_NEWUSER)
        if maps:
            inside.take_hold_outside(request, ctx)
        if order.target >= 0:
            pid, pidfd = clone_into(order.target, libc.CLONE_NEWNET, flags & ~libc.CLONE_NEWNET)
        else:
            pid, pidfd = libc.clone3(flags)
        if pid == 0:
            signal.set_wakeup_fd(-1)
            child.become(request, ctx, order.channel, order.stdio, maps, function)
        return pid, pidfd

    def _join(self, order: Order, request: Request, ctx: Context, function: child.Function | None) -> tuple[int, int]:
        """Clone into the PID namespace of a container; the child joins the others."""
        flags = self._different(order.target, request.name)
        if function:
            flags &= CALL_NAMESPACES
        try:
            joins = bool(flags & libc.CLONE_NEWPID)
            pid, pidfd = clone_into(order.target, libc.CLONE_NEWPID) if joins else libc.clone3(0)
            if pid == 0:
                signal.set_wakeup_fd(-1)
                target = (order.target, flags & ~libc.CLONE_NEWPID)
                child.join(request, ctx, order.channel, order.stdio, target, function)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.ENOMEM):  # a PID namespace takes nobody in once its init has ended
                raise inside.ended(request.name) from None
            raise
        return pid, pidfd

    def _different(self, target: int, name: str) -> int:
        """The namespaces of a process that are not ours, as CLONE_NEW* flags."""
        pid = pid_of(target)
        try:
            found = _namespaces(pid) if pid else {}
        except ProcessLookupError:
            found = {}
        if not found:
            raise inside.ended(name)
        return sum(NAMESPACES[kind] for kind, which in found.items() if which != self._namespaces[kind])

    # -- ends ----------------------------------------------------------------------------------------------

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
                self._ended(living, os.waitstatus_to_exitcode(status))

    def _ended(self, living: Living, status: int | None) -> None:
        """Write the exit status down before anybody is told, then let go of what was kept.

        Where nobody is there to be told, what is written suffices, unless there is output that must be handed over.
        """
        end = End(status, time.time())
        report = {"exited": living.id, "status": end.status, "time": end.time}
        if not living.more:
            write_end(self.run_dir, living.id, end)
        if not living.id or self._tell(report) or living.more or not living.has_unread():
            living.close()
        else:
            self.ended.append((report, living))

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        if self.control is None or not self._asked:
            return False
        try:
            self.control.send(message, fds)
        except OSError:
            self._hang_up()
            return False
        return True


def _namespaces(pid: int | str) -> dict[str, str]:
    """The namespaces of a process, as far as this kernel has them; empty where there is no such process."""
    found: dict[str, str] = {}
    for kind in NAMESPACES:
        with contextlib.suppress(FileNotFoundError):
            found[kind] = os.readlink(f"/proc/{pid}/ns/{kind}")
    return found


def _forget_if_running(living: Living) -> None:
    """Let go of the channel of a process that has become its program: the other end is closed."""
    channel = living.kept.get("channel")
    if channel is None:
        return
    poll = select.poll()
    poll.register(channel, 0)  # POLLHUP is always told
    if poll.poll(0):
        os.close(living.kept.pop("channel"))


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _wake_up(*_: object) -> None:
    """A handler of our own, so that SIGCHLD is not ignored and the wake-up descriptor is written to."""


def _ignore_signals() -> None:
    """By a handler that does nothing: whatever has one is as it should be after exec, whatever is ignored stays so."""
    for number in (32, 33):  # the C library's own, ignored by its posix_spawn(3), and of which Python knows nothing
        libc.default_signal(number)
    for number in signal.valid_signals():
        if number in _UNWANTED or signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _wake_up)


def main() -> None:
    """Entered by a fresh interpreter: descriptor 3 is the control channel, argv[1] the run dir.

    argv[2] is how many open files the programs may have (soft limit).
    """
    libc.prctl(libc.PR_SET_NAME, libc.address_of(b"pycore-spawner"))
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)  # what a container without a PID namespace leaves is ours to wait for
    os.chdir("/")
    control = Channel.of(interpreter.FIRST)
    run_dir = Path(sys.argv[1])
    _ignore_signals()
    limits.raise_open_files(int(sys.argv[2]))
    directory, name = run_dir / protocol.DIRECTORY, f"{os.getpid()}.sock"
    with listen(directory, name) as listener:
        gc.freeze()
        Spawner(run_dir, listener, control).run()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory / name)
