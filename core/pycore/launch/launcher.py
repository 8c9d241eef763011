"""The engine's side of a launch: asks a spawner for processes, hears of their ends, whoever has died meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

from pycore.errors import PycoreError, SupervisorError
from pycore.launch import link as links
from pycore.launch import protocol, subreaper
from pycore.launch.channel import Channel
from pycore.launch.ends import End, read_end, write_end
from pycore.launch.link import Link
from pycore.launch.poller import HANGUP, Poller
from pycore.launch.request import Request
from pycore.launch.starting import Launched, send_signal
from pycore.linux.pidfd import Unreaped, exit_status
from pycore.linux.pidfd import start_time as start_time

ExitHandler = Callable[[str, "int | None", float], None]
"""Called with the id of a request, exit status (negative: the signal; None where nobody can know) and the time of
the end in seconds since 1970."""

Known = Iterable[tuple[str, int, int]]
"""Id, process id and :func:`start_time` of containers that are believed to run."""

ANSWER = 10.0
"""Seconds that a spawner may take to tell what it looks after; one that is stopped, say, is done without."""


@dataclass(frozen=True)
class Stdio:
    """Descriptors for the program's standard streams, and others for the spawner to keep. None is closed here."""

    stdin: int
    stdout: int
    stderr: int
    kept: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the spawner keeps for whoever takes over, by name: ``stdout`` and ``stderr`` (read ends of log pipes),
    ``stdin`` (a write end), ``terminal`` (the master of a pty)."""


@dataclass(frozen=True)
class Adopted:
    """A container that was there before this launcher came."""

    id: str
    pid: int
    pidfd: int
    """-1 where it has ended while nobody listened; then ``status`` and ``ended`` say how and when."""
    kept: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the spawner has kept, of :attr:`Stdio.kept`; the caller's to close. Nothing where the spawner died."""
    status: int | None = None
    """None also where nobody can know; then ``ended`` is when that was noticed."""
    ended: float = 0.0
    starting: Starting | None = None
    """The way to let it go on, where it was launched with ``hold`` and waits. Its pidfd is this one's. Whether it
    has entered was told to an earlier launcher, or to nobody: only a record can say that it had come that far."""


class Starting(Protocol):
    """A container's process between clone and exec."""

    pid: int
    pidfd: int
    """The caller's to close."""

    def mapped(self) -> None:
        """Its id maps are written: it may go on to the enter phase."""
        ...

    def entered(self) -> int:
        """Wait until it is inside and waits for :meth:`go`, for as long as anybody likes. Raises StartError.

        Returns the master of its terminal, the caller's to close; -1 where the request asked for none.
        """
        ...

    def go(self) -> None:
        """Let it confine itself and exec. Returns when the program runs; raises StartError."""
        ...

    def close(self) -> None:
        """Let go of it without a word: one that is held waits on, for whoever takes over."""
        ...

    def abandon(self) -> PycoreError | None:
        """Kill it. Returns what it had said of a failure of its own, which came before any of ours."""
        ...


def give_up(starting: Starting, error: BaseException, settle: Callable[[], None] = lambda: None) -> NoReturn:
    """A start has failed: kill the process, ``settle`` what that leaves, and raise what had gone wrong first.

    What the process has said of a failure of its own came before any of ours.
    """
    cause = starting.abandon()
    settle()
    if cause and cause is not error:
        raise cause from error
    raise error


class Launcher(Protocol):
    """Starts containers; a fake one in :mod:`pycore.testing` does so without a process."""

    def launch(self, request: Request, stdio: Stdio, *, hold: bool = False, network_of: int = -1) -> Starting:
        """Clone the container's process. Raises StartError.

        Until it runs its program it ends when this process does; with ``hold`` it waits for whoever takes over.
        ``network_of`` is a pidfd of a process whose network namespace it is to be in, rather than in a new one.
        """
        ...

    def execute(self, request: Request, target_pidfd: int, stdio: Stdio) -> Starting:
        """Clone one more process for a container that runs: it joins what the first process is in.

        It waits for nobody before its program, but what goes wrong is still heard of in :meth:`Starting.go`. Its end
        is told under ``request.id``, and not written down. Raises StartError.
        """
        ...

    def adopt(self, known: Known = ()) -> list[Adopted]:
        """The containers that run already, or ended while nobody listened; called once, before the first launch.

        Those of ``known`` that no spawner tells of are found by their process: their spawner died too.
        """
        ...

    def keep(self, identity: str, name: str, fd: int) -> None:
        """Let the spawner keep one more descriptor for a container (:attr:`Stdio.kept`); ours stays the caller's."""
        ...

    def release(self, identity: str, name: str) -> None:
        """Let the spawner close one of the descriptors that it keeps for a container: nobody will want it again."""
        ...

    def kill(self, identity: str, pidfd: int, number: int) -> None:
        """Send a signal to a container's first process; one that has ended is fine."""
        ...

    def close(self) -> None:
        """Let go of the spawner; it ends when its last container has."""
        ...


@dataclass(eq=False)
class _Tracked:
    """A process whose end is to be told. The descriptor is our own: its spawner may die before it does."""

    id: str
    link: Link | None
    """The spawner that waits for it; None where that one is gone."""
    more: bool = False
    """Whether it is one more process of a container."""
    pid: int = 0
    pidfd: int = -1
    keeper: Link | None = None
    """The spawner that keeps its descriptors: the one that waits for it, or if that is gone, another."""
    kept: dict[str, int] = field(default_factory=dict[str, int])
    """Duplicates of what is kept, for another spawner when the first is gone."""

    def keep(self, name: str, fd: int) -> None:
        """Have a duplicate as well."""
        self.release(name)
        self.kept[name] = os.dup(fd)

    def release(self, name: str) -> None:
        """Let go of it."""
        if name in self.kept:
            os.close(self.kept.pop(name))

    def close(self) -> None:
        for name in list(self.kept):
            self.release(name)
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class _Lost(Exception):
    """The spawner went before it answered."""


class SpawnerLauncher:
    """The real launcher. Spawners outlive launchers, so there may be some already; one is started where none fits.

    What runs is looked after through its spawner, or if that is killed, by its pidfd. For that this process is
    a child subreaper as long as the launcher is open.
    """

    def __init__(self, run_dir: Path, on_exit: ExitHandler) -> None:
        self.run_dir = run_dir
        self.on_exit = on_exit
        self._lock = threading.RLock()
        """Guards what follows, and who is looked after by whom."""
        self._tracked: dict[str, _Tracked] = {}
        self._links: list[Link] = []
        self._found: list[Adopted] | None = []
        """What spawners have told; None once it has been asked for."""
        self._starting = threading.Lock()
        subreaper.acquire()
        self._poller = Poller("pycore-exits")
        try:
            self._meet(links.find(run_dir))
            self._spawner()
        except BaseException:
            self.close()
            raise

    # -- spawners ----------------------------------------------------------------------------------------

    def _meet(self, found: Sequence[Link]) -> None:
        """Ask all spawners that are there what they look after."""
        for link in found:
            self._listen(link)
            with contextlib.suppress(OSError):
                link.send({"adopt": protocol.PROTOCOL})
        deadline = time.monotonic() + ANSWER
        for link in found:
            link.answered.wait(max(0.0, deadline - time.monotonic()))

    def _listen(self, link: Link) -> None:
        with self._lock:
            self._links.append(link)
        self._poller.add(link.channel.fileno(), partial(self._hear, link))

    def _spawner(self) -> Link:
        """One that may be asked for processes."""
        with self._starting:
            with self._lock:
                fitting = [link for link in self._links if link.fits]
            if fitting:
                return fitting[0]
            link = links.start(self.run_dir)
            self._listen(link)
            return link

    def _hear(self, link: Link, _: int) -> None:
        """Take one frame of a spawner; at its end, look after what it has left."""
        try:
            received = link.channel.receive()
        except (OSError, ValueError):
            received = None
        if received is None:
            self._lose(link)
            return
        message, fds = received
        if "living" in message:
            self._find(link, message, fds)
        elif "exited" in message:
            self._exited(message["exited"], End(message["status"], message["time"]))
        elif "adopted" in message:
            with self._lock:
                link.fits = protocol.fits(message)
            self._let_go_of_empty(link)
            link.answered.set()

    def _find(self, link: Link, message: Mapping[str, Any], fds: list[int]) -> None:
        """A container that was there before us: it runs, or it waits, or it has ended while nobody listened."""
        if self._found is None:  # it was stopped, and goes on now: its containers have been found without it
            for fd in fds:
                os.close(fd)
            return
        identity, pid = message["living"], message["pid"]
        pidfd = fds.pop(0) if pid else -1
        kept = dict(zip(message["kept"], fds, strict=True))
        tracked = _Tracked(identity, link, pid=pid, keeper=link)
        if pid:
            tracked.pidfd = os.dup(pidfd)
            for name, fd in kept.items():
                tracked.keep(name, fd)
        channel = kept.pop("channel", None)
        starting = Launched(identity, Channel.of(channel), pid, pidfd, True) if channel is not None else None
        if pid:
            adopted = Adopted(identity, pid, pidfd, kept, starting=starting)
        else:
            adopted = Adopted(identity, 0, -1, kept, message["status"], message["time"])
        with self._lock:
            self._found.append(adopted)
            if pid:
                self._tracked[identity] = tracked

    def _let_go_of_empty(self, link: Link) -> None:
        """A spawner that we have no use for ends when it has nothing left to look after and we hang up."""
        with self._lock:
            if link.fits or link.lost or any(link in (each.link, each.keeper) for each in self._tracked.values()):
                return
            link.lost = True
            self._links.remove(link)
        self._poller.remove(link.channel.fileno())
        link.close()

    def _lose(self, link: Link) -> None:
        """A spawner is gone: its processes have another parent now, us if we had started it."""
        self._poller.remove(link.channel.fileno())
        with self._lock:
            link.lost, link.fits = True, False
            self._links.remove(link)
            left = [each for each in self._tracked.values() if each.link is link]
            unkept = [each for each in self._tracked.values() if each.keeper is link and each.pid and not each.more]
            for each in left:
                each.link = None
            for launched in link.waiting:
                launched.cut()
        for each in left:
            self._watch(each)
        link.close()
        link.answered.set()
        with contextlib.suppress(SupervisorError, OSError):  # if it cannot be now, the next start says why
            self._have_kept(unkept)

    def _have_kept(self, unkept: Sequence[_Tracked]) -> None:
        """Have another spawner keep what one has kept: a pipe without a reader would end whoever writes to it."""
        if not unkept:
            return
        link = self._spawner()
        for each in unkept:
            with self._lock:
                if self._tracked.get(each.id) is not each:
                    continue
                each.keeper = link
                message = {"foster": each.id, "pid": each.pid, "kept": list(each.kept)}
                link.send(message, (each.pidfd, *each.kept.values()))

    # -- ends ----------------------------------------------------------------------------------------------

    def _watch(self, tracked: _Tracked) -> None:
        """Learn of an end from the process itself."""
        if tracked.pidfd >= 0:
            self._poller.add(tracked.pidfd, partial(self._ended, tracked))

    def _ended(self, tracked: _Tracked, events: int) -> None:
        status = exit_status(tracked.pidfd)
        if isinstance(status, Unreaped):
            if not events & HANGUP:
                self._poller.only_hangup(tracked.pidfd)
                return
            status = None
        end = End(status, time.time())
        if not tracked.more:
            write_end(self.run_dir, tracked.id, end)
        self._exited(tracked.id, end, tracked)

    def _exited(self, identity: str, end: End, which: _Tracked | None = None) -> None:
        """An end was told, by a spawner or by the process: tell it once."""
        with self._lock:
            tracked = self._tracked.get(identity)
            expected = tracked is not None and which in (None, tracked)  # else told already, or given up
            if expected:
                del self._tracked[identity]
                which = tracked
        if which:
            if which.pidfd >= 0:
                self._poller.remove(which.pidfd)
            which.close()
        if expected:
            self.on_exit(identity, end.status, end.time)
        for link in {which.link, which.keeper} if which else ():
            if link:
                self._let_go_of_empty(link)

    # -- Launcher ------------------------------------------------------------------------------------------

    def adopt(self, known: Known = ()) -> list[Adopted]:
        with self._lock:
            found, self._found = self._found or [], None
        told = {each.id for each in found}
        return [*found, *(self._by_process(*each) for each in known if each[0] not in told)]

    def _by_process(self, identity: str, pid: int, started: int) -> Adopted:
        """A container whose spawner died while nobody was there: the same process, or it has ended."""
        pidfd = -1
        with contextlib.suppress(OSError):  # none of that number, or a mere thread
            pidfd = os.pidfd_open(pid)
        if pidfd >= 0 and started and start_time(pid) == started:
            with self._lock:
                tracked = self._tracked[identity] = _Tracked(identity, None, pid=pid, pidfd=os.dup(pidfd))
            self._watch(tracked)
            return Adopted(identity, pid, pidfd)
        if pidfd >= 0:
            os.close(pidfd)
        end = read_end(self.run_dir, identity)
        if end is None:
            end = End(None, time.time())
            write_end(self.run_dir, identity, end)
        return Adopted(identity, 0, -1, {}, *end)

    def launch(self, request: Request, stdio: Stdio, *, hold: bool = False, network_of: int = -1) -> Starting:
        target = (network_of,) if network_of >= 0 else ()
        return self._clone({"launch": request.to_json()}, request, stdio, target, hold)

    def execute(self, request: Request, target_pidfd: int, stdio: Stdio) -> Starting:
        return self._clone({"execute": request.to_json()}, request, stdio, (target_pidfd,))

    def _clone(
        self,
        message: Mapping[str, Any],
        request: Request,
        stdio: Stdio,
        target: tuple[int, ...] = (),
        hold: bool = False,
    ) -> Launched:
        """Ask a spawner; where it has died, the next one."""
        for _ in range(2):
            link = self._spawner()
            try:
                return self._ask(link, message, request, stdio, target, hold)
            except _Lost:
                with self._lock:
                    link.fits = False  # whether or not its end has been heard of yet
        raise SupervisorError(f"{request.name}: the spawner is gone, and the one started after it too")

    def _ask(
        self,
        link: Link,
        message: Mapping[str, Any],
        request: Request,
        stdio: Stdio,
        target: tuple[int, ...],
        hold: bool,
    ) -> Launched:
        ours, theirs = Channel.pair()
        kept = {**stdio.kept, "channel": ours.fileno()} if hold else stdio.kept
        fds = (stdio.stdin, stdio.stdout, stdio.stderr, theirs.fileno(), *target, *kept.values())
        more = "execute" in message
        launched = Launched(request.name, ours, waits=not more)
        tracked = _Tracked(request.id, link, more, keeper=link)
        try:
            self._expect(link, launched, tracked)
            try:
                if not tracked.more:
                    for name, fd in kept.items():
                        tracked.keep(name, fd)
                link.send({**message, "kept": list(kept), "target": bool(target)}, fds)
                theirs.close()
                if not launched.wait_clone():
                    raise _Lost
            except OSError as error:
                raise _Lost from error
            finally:
                self._expected(link, launched, tracked)
        except BaseException:
            theirs.close()
            self._forget(tracked)
            launched.abandon()
            if launched.pidfd >= 0:
                os.close(launched.pidfd)
            raise
        return launched

    def _expect(self, link: Link, launched: Launched, tracked: _Tracked) -> None:
        """Be told of its end, however soon that comes."""
        with self._lock:
            if link.lost:
                raise _Lost
            link.waiting.add(launched)
            self._tracked[tracked.id] = tracked

    def _expected(self, link: Link, launched: Launched, tracked: _Tracked) -> None:
        """It has been cloned, or has not; if the spawner has died meanwhile, the process will not go on."""
        with self._lock:
            link.waiting.discard(launched)
            if launched.pidfd >= 0 and self._tracked.get(tracked.id) is tracked:
                tracked.pid, tracked.pidfd = launched.pid, os.dup(launched.pidfd)
            lost = link.lost
        if lost:
            raise _Lost

    def _forget(self, tracked: _Tracked) -> None:
        """Tell nobody of its end; what there is of it is still to be waited for."""
        with self._lock:
            if self._tracked.get(tracked.id) is tracked:
                del self._tracked[tracked.id]
        if tracked.pidfd >= 0:
            tracked.more = True
            self._watch(tracked)
        else:
            tracked.close()

    def keep(self, identity: str, name: str, fd: int) -> None:
        with self._lock:
            tracked = self._tracked.get(identity)
            if tracked:
                tracked.keep(name, fd)
                self._tell(tracked, {"keep": identity, "name": name}, (fd,))

    def release(self, identity: str, name: str) -> None:
        with self._lock:
            tracked = self._tracked.get(identity)
            if tracked:
                tracked.release(name)
                self._tell(tracked, {"release": identity, "name": name})

    @staticmethod
    def _tell(tracked: _Tracked, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Say something to the spawner that keeps descriptors of a process, if that is still there."""
        if tracked.keeper:
            with contextlib.suppress(OSError):
                tracked.keeper.send(message, fds)

    def kill(self, identity: str, pidfd: int, number: int) -> None:
        send_signal(pidfd, number)

    def close(self) -> None:
        self._poller.stop()
        with self._lock:
            for link in self._links:
                link.close()
            for tracked in self._tracked.values():
                tracked.close()
            self._links, self._tracked = [], {}
        subreaper.release()
