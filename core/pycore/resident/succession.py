"""One supervisor makes way for the next: for a newer version of pycore, or for the one that systemd keeps.

Who comes next holds RUN_DIR/starting meanwhile, asks the one that runs to retire, and waits for it to hang up: it
finishes what it has begun, lets go of the run dir and ends. Containers run on all the time. One that does not end is
killed, after a look at whether it really is what holds the run dir.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path

from pycore.client import SOCKET_FILE, VERSION, Option, fail
from pycore.errors import Conflict, SupervisorError
from pycore.launch.address import connect
from pycore.resident.supervisor import RETIRE, start_supervisor

PATIENCE = 60.0
"""Seconds that a supervisor may take to finish what it has begun; PYCORE_PATIENCE changes it."""
_KILLED = 10.0

_PHASES = {"dev": 0, "a": 1, "b": 2, "rc": 3, "": 4, "post": 5}


def order_of(version: str) -> tuple[tuple[int, ...], int, int, int]:
    """What versions are compared by: ``1.2.0rc1/2`` is a release candidate of pycore 1.2.0 that speaks protocol 2."""
    package, _, protocol = version.partition("/")
    release, phase, number = package, "", ""
    for word in ("dev", "post", "rc", "b", "a"):
        left, found, right = package.partition(word)
        if found:
            release, phase, number = left.rstrip(".-_"), word, right
            break
    parts = [_number(part) for part in release.partition("+")[0].split(".")]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return tuple(parts), _PHASES[phase], _number(number.partition("+")[0]), _number(protocol)


def _number(word: str) -> int:
    digits = word[: next((place for place, char in enumerate(word) if not "0" <= char <= "9"), len(word))]
    return int(digits[:9] or "0")


def succeed(option: Option, theirs: str) -> None:
    """The supervisor of a run dir is of another version: have it make way, or say what is to be done."""
    if order_of(theirs) >= order_of(VERSION):
        newer, own = theirs.partition("/")[0], VERSION.partition("/")[0]
        fail(
            f"pycore {newer} looks after {option.run_dir}, and this is {own}",
            1,
            f"use pycore {newer}, or another place with --run-dir",
        )
    try:
        start_supervisor(option.run_dir, option.data_dir, succeeding=True)
    except SupervisorError as error:
        fail(error.message, error.exit_status, error.hint or "")
    except OSError as error:
        fail(f"cannot start a supervisor in {option.run_dir}: {error.strerror}", 125)


def make_way(run_dir: str, *, equals: bool = False) -> bool:
    """Have the supervisor that runs make way; the caller holds RUN_DIR/starting. Raises SupervisorError.

    ``equals``: one of our own version too. False where it stays, being of our version, or newer.
    """
    connection = connect(run_dir, SOCKET_FILE)
    if connection is None:
        return True
    with connection:
        words = "\0".join((RETIRE, VERSION, "equals" if equals else "newer")).encode()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:  # a request has descriptors, whatever it is for
            socket.send_fds(connection, [len(words).to_bytes(4, "big") + words], [null] * 3)
            answer = connection.recv(4)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        finally:
            os.close(null)
        if answer and int.from_bytes(answer, "big"):
            return False
        if not answer:
            # It was just ending; or it cannot answer, since its files have been replaced: a signal needs none of them.
            _send_away(run_dir, signal.SIGTERM, _patience())
        if not answer or not _hangs_up(connection, _patience()):
            _kill(run_dir)
    return True


def _patience() -> float:
    try:
        return max(0.0, float(os.environ["PYCORE_PATIENCE"]))
    except (KeyError, ValueError):
        return PATIENCE


def _hangs_up(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds or 0.001)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def _kill(run_dir: str) -> None:
    """Kill what holds the run dir, if it still does, and wait for its end. Raises SupervisorError."""
    left = _send_away(run_dir, signal.SIGKILL, _KILLED)
    if left:
        raise SupervisorError(
            f"the supervisor (pid {left}) does not end, not even by SIGKILL", hint=f"see /proc/{left}/stack"
        )


def _send_away(run_dir: str, number: signal.Signals, seconds: float) -> int:
    """Send a signal to what holds the run dir, if something does, and wait for its end; its id where it stays."""
    lock = Path(run_dir) / "lock"
    try:
        pid = int(lock.read_text(encoding="ascii"))
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return 0  # it has ended meanwhile
    try:
        if not _has_open(pid, lock):
            return 0
        if number is signal.SIGKILL:
            print(f"pycore: the supervisor (pid {pid}) does not end: it is killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        gone = select.poll()
        gone.register(pidfd, select.POLLIN)
        return 0 if gone.poll(seconds * 1000) else pid
    finally:
        os.close(pidfd)


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process holds a file open: the number in a lock file may be another process's by now."""
    wanted = path.stat()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
    except OSError:
        pass
    return False


def refusal(version: str, which: str) -> bool:
    """Whether a supervisor of this version stays where one of another asks it to retire."""
    asks, own = order_of(version), order_of(VERSION)
    return not (asks > own or (which == "equals" and asks == own))


def take_place(run_dir: str) -> None:
    """Have any supervisor of a run dir make way for one that is kept by systemd. Raises Conflict, SupervisorError."""
    if not make_way(run_dir, equals=True):
        raise Conflict(
            f"a newer pycore looks after {run_dir}", hint="use that version, or another place with --run-dir"
        )
