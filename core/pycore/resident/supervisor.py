"""The resident: an engine behind a socket. It ends when it has nothing to look after.

The first command that needs it starts it; ``pycore supervise`` runs it in the foreground, for systemd.
A client sends its words, its environment and its standard streams; the verb runs here and writes straight
to the client's descriptors. What goes back is the exit status, and before it, for what may last, the words with
which the client goes on when this supervisor ends.

It ends when it is asked to, by SIGTERM or by the supervisor that comes next (:mod:`pycore.resident.succession`): what
it has begun it finishes, what lasts is gone on with elsewhere. Asked a second time it ends at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pycore.client import GO_ON, OTHER_VERSION, SOCKET_FILE, VERSION
from pycore.errors import PycoreError, SupervisorError
from pycore.launch import interpreter, limits
from pycore.launch.address import connect, listen
from pycore.launch.request import DEFAULT_PATH
from pycore.linux import rootless
from pycore.resident.notify import Notifier

if TYPE_CHECKING:
    from pycore.cli import Session
    from pycore.engine import Engine

LINGER = "10"
"""Seconds without a container and without a client after which the supervisor ends; PYCORE_LINGER changes it."""
QUIET = 60.0
"""Seconds without a client after which plugins tidy up; less where the supervisor ends before."""
MAX_REQUEST = 16 << 20
_NO_ROOM = 0.1
RETIRE = "retire"
"""In the place of a request's version: every version of the supervisor understands it."""


def start_supervisor(run_dir: str, data_dir: str, *, succeeding: bool = False) -> None:
    """Start a supervisor in the background, unless somebody else just did. Raises OSError, SupervisorError.

    The socket is bound and listens before the new process starts, so whoever connects is served once it is
    up: nobody has to try again and again. ``succeeding``: one of an older version makes way first.
    """
    if os.geteuid():
        rootless.check()
    with _starting(run_dir):
        if succeeding:
            from pycore.resident.succession import make_way

            if not make_way(run_dir):
                return
        else:
            probe = connect(run_dir, SOCKET_FILE)
            if probe:
                probe.close()
                return
        with listen(run_dir, SOCKET_FILE) as listener:
            _spawn(listener, run_dir, data_dir)


def supervise(run_dir: Path, data_dir: Path) -> None:
    """Be the supervisor of a run dir until SIGTERM; one that runs makes way. Raises Conflict, SupervisorError.

    Ends the process.
    """
    from pycore.resident.succession import take_place

    with _starting(str(run_dir)):
        take_place(str(run_dir))
        listener = listen(run_dir, SOCKET_FILE)
    serve(listener, run_dir, data_dir, None)


@contextlib.contextmanager
def _starting(run_dir: str) -> Generator[None, None, None]:
    """One supervisor at a time is started in a run dir."""
    os.makedirs(run_dir, 0o711, exist_ok=True)
    user = os.geteuid()
    if user and os.stat(run_dir).st_uid != user:
        raise SupervisorError(f"{run_dir} is another user's", hint="choose another place with --run-dir")
    lock = os.open(f"{run_dir}/starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _spawn(listener: socket.socket, run_dir: str, data_dir: str) -> None:
    environment = {"PATH": DEFAULT_PATH, "PYCORE_LINGER": os.environ.get("PYCORE_LINGER", LINGER)}
    log = os.open(f"{run_dir}/supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        interpreter.start("pycore.resident.supervisor", [run_dir, data_dir], [listener.fileno()], environment, log)
    finally:
        os.close(log)


def main() -> None:
    """Entered by a fresh interpreter: descriptor 3 listens, argv[1] is the run dir, argv[2] the data dir."""
    rootless.enter(sys.argv[1], record=True)
    os.chdir("/")
    os.umask(0o022)
    serve(socket.socket(fileno=interpreter.FIRST), Path(sys.argv[1]), Path(sys.argv[2]), _linger())


def _linger() -> float:
    try:
        return max(0.0, float(os.environ["PYCORE_LINGER"]))
    except (KeyError, ValueError):
        return float(LINGER)


def serve(listener: socket.socket, run_dir: Path, data_dir: Path, linger: float | None) -> None:
    """Serve clients until there is nothing to look after for ``linger`` seconds; None means until SIGTERM.

    What ran is taken over first, and after a boot what was applied comes back. Ends the process.
    """
    from pycore.engine import Engine

    importlib.import_module("pycore.resident.succession")  # when it is needed, its file may be another version's
    limits.raise_open_files()
    notifier = Notifier()
    engine = Engine(run_dir, data_dir)
    _look_for_garbage_seldom()
    server = Server(listener, engine, linger)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end)
    try:
        engine.open()
    except PycoreError:
        if linger is None:
            raise
        # else every client is told when it asks for something
    if notifier:
        notifier.tell("READY=1", _status(engine))
        threading.Thread(target=_tell_status, args=(engine, notifier), daemon=True).start()
    server.run()
    notifier.tell("STOPPING=1")
    server.finish()
    engine.close()
    sys.stderr.flush()
    os._exit(0)  # threads of what lasts are not waited for: their clients go on elsewhere


def _look_for_garbage_seldom() -> None:
    """Leave out what was made until now, which stays, and let more come together before each look.

    A look at all that a thousand containers keep alive takes a tenth of a second, in the middle of some command.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _status(engine: Engine) -> str:
    number = engine.looked_after()
    return f"STATUS=looks after {number} container{'' if number == 1 else 's'}"


def _tell_status(engine: Engine, notifier: Notifier) -> None:
    """Tell how many containers there are, whenever that changes."""
    changed = engine.open().changed
    while True:
        with changed:
            changed.wait()
        notifier.tell(_status(engine))


class Server:
    """The accept loop; a thread per client."""

    def __init__(self, listener: socket.socket, engine: Engine, linger: float | None) -> None:
        self.listener, self.engine, self.linger = listener, engine, linger
        self._clients: dict[socket.socket, Session | None] = {}
        """Those who wait for an answer; None before it is known what they ask for."""
        self._successors: list[socket.socket] = []
        """Who waits for our end: they hear of it when all is closed."""
        self._registry = threading.Lock()
        self._tidying = False
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def end(self, *_: object) -> None:
        """Stop serving; containers run on. A signal handler, and safe as one. The second time it is meant at once."""
        os.write(self._woken, b"x")

    def run(self) -> None:
        """Accept until the end."""
        idle_since = quiet_since = time.monotonic()
        tidied = True  # nobody has been here yet
        poll = select.poll()
        for fd in (self.listener.fileno(), self._wake):
            poll.register(fd, select.POLLIN)
        while True:
            patience = self._patience(idle_since, None if tidied else quiet_since)
            ready = {fd for fd, _ in poll.poll(None if patience is None else patience * 1000)}
            if self._wake in ready and b"x" in os.read(self._wake, 1):
                return
            if self.listener.fileno() in ready:
                self._accept()
                idle_since = quiet_since = time.monotonic()  # whoever it was may be gone already
                tidied = False
            now = time.monotonic()
            if self._clients:
                quiet_since = now
            elif not tidied and now - quiet_since >= self._quiet():
                tidied = self._tidying = True
                threading.Thread(target=self._tidy, name="pycore-tidying", daemon=True).start()
            if self._clients or self.engine.busy():
                idle_since = now
            elif self.linger is not None and now - idle_since >= self.linger and not self._tidying:
                return

    def _accept(self) -> None:
        """Serve one more client. Where the host has no room for it, the supervisor lives on, and so do containers."""
        try:
            connection, _ = self.listener.accept()
            self._register(connection, None)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except (OSError, RuntimeError):
            traceback.print_exc()
            time.sleep(_NO_ROOM)  # no descriptor or no thread is left, and nobody says when there is one again

    def finish(self) -> None:
        """Finish what was begun, but for what lasts; until somebody asks a second time."""
        os.set_blocking(self._wake, True)
        while self._unfinished():
            if b"x" in os.read(self._wake, 1):
                return

    def _unfinished(self) -> bool:
        with self._registry:
            return any(session is None or not session.lasting for session in self._clients.values())

    def _patience(self, idle_since: float, quiet_since: float | None) -> float | None:
        """Seconds until something may be to be done; None where only a client can bring it."""
        waits: list[float] = []
        if quiet_since is not None and not self._clients:
            waits.append(quiet_since + self._quiet() - time.monotonic())
        if self.linger is not None:
            busy = self._clients or self._tidying or self.engine.busy()
            waits.append(self.linger if busy else idle_since + self.linger - time.monotonic())
        return max(0.0, min(waits)) if waits else None

    def _quiet(self) -> float:
        return QUIET if self.linger is None else min(QUIET, self.linger)

    def _tidy(self) -> None:
        try:
            self.engine.tidy()
        finally:
            self._tidying = False
            self._changed()

    def _register(self, connection: socket.socket, session: Session | None) -> None:
        with self._registry:
            self._clients[connection] = session

    def _changed(self) -> None:
        """Have the main thread look again whether all is finished."""
        with contextlib.suppress(BlockingIOError):  # it is full: then there is enough to wake up for
            os.write(self._woken, b".")

    def _serve(self, connection: socket.socket) -> None:
        try:
            fields, stdio = receive(connection)
            try:
                if fields[0] == RETIRE:
                    self._retire(connection, fields[1], fields[2])
                elif fields[0] not in (VERSION, GO_ON):
                    own = VERSION.encode()
                    connection.sendall(OTHER_VERSION.to_bytes(4, "big") + len(own).to_bytes(4, "big") + own)
                else:
                    self._answer(connection, Request.of(fields, stdio))
            finally:
                for fd in stdio:
                    os.close(fd)
        except (OSError, ValueError, IndexError):
            pass  # the client is gone, or is none
        finally:
            with self._registry:
                self._clients.pop(connection, None)
            if connection not in self._successors:
                connection.close()
            self._changed()

    def _retire(self, connection: socket.socket, version: str, which: str) -> None:
        from pycore.resident.succession import refusal

        refused = refusal(version, which)
        if not refused:
            self._successors.append(connection)
        connection.sendall(int(refused).to_bytes(4, "big"))
        if not refused:
            self.end()

    def _answer(self, connection: socket.socket, request: Request) -> None:
        from pycore.cli import Session, perform

        session = Session(self.engine, request.directory, request.environment, request.stdio, connection)
        session.on_lasting = self._changed
        self._register(connection, session)
        status = 1
        if request.data_dir == str(self.engine.data_dir):
            status = perform(session, request.words)
        else:
            session.err(f"pycore: the supervisor of {self.engine.run_dir} keeps its data in {self.engine.data_dir}\n")
        connection.sendall(status.to_bytes(4, "big"))


@dataclass
class Request:
    """What a client asks for."""

    data_dir: str
    directory: Path
    words: list[str]
    environment: dict[str, str]
    stdio: tuple[int, int, int]

    @classmethod
    def of(cls, fields: list[str], stdio: tuple[int, int, int]) -> Request:
        """What a request's fields say. Raises ValueError where they are none of our own version."""
        _, data_dir, directory, count, *rest = fields
        words, variables = rest[: int(count)], rest[int(count) :]
        environment = {name: value for name, _, value in (variable.partition("=") for variable in variables)}
        return cls(data_dir, Path(directory), words, environment, stdio)


def receive(connection: socket.socket) -> tuple[list[str], tuple[int, int, int]]:
    """Read a request: its fields, the version first, and three descriptors. Raises ValueError where it is none.

    This much every version of pycore understands.
    """
    from pycore.launch.channel import received_fds

    # Not socket.recv_fds: it drops its flags, and a spawner that is being started would inherit the descriptors.
    data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 3), socket.MSG_CMSG_CLOEXEC)
    fds = received_fds(ancillary)
    try:
        if len(fds) != 3 or len(data) < 4:
            raise ValueError("no request")
        size, body = int.from_bytes(data[:4], "big"), bytearray(data[4:])
        if size > MAX_REQUEST:
            raise ValueError("too long")
        while len(body) < size:
            more = connection.recv(size - len(body))
            if not more:
                raise ValueError("cut off")
            body += more
        return body.decode("utf-8", "surrogateescape").split("\0"), (fds[0], fds[1], fds[2])
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
