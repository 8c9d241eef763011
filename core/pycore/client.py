"""The command, as thin as it can be: it hands its words and its descriptors to the supervisor and waits.

Start-up is what a command costs (docs/architecture.md), so nothing is imported that the way to the
supervisor does not need: ``_socket`` and ``_signal`` are what ``socket`` and ``signal`` wrap, without the
enum classes that take longer to build than a container takes to start.
"""

from __future__ import annotations

import os
import sys

DEFAULT_RUN_DIR = "/run/pycore"
DEFAULT_DATA_DIR = "/var/lib/pycore"

LOCAL = ("check", "plan", "plugins", "schema", "doctor", "supervise", "systemd", "help")
"""Verbs that change nothing, and the supervisor itself: they are done in this process."""

REQUEST_VERSION = "1"
SOCKET_FILE = "pycore.sock"
FORWARDED = (1, 2, 3, 10, 12, 15)  # HUP INT QUIT USR1 USR2 TERM


class Option:
    """The options before the verb: where things are."""

    def __init__(self, words: list[str]) -> None:
        self.run_dir = os.environ.get("PYCORE_RUN_DIR") or DEFAULT_RUN_DIR
        self.data_dir = os.environ.get("PYCORE_DATA_DIR") or DEFAULT_DATA_DIR
        self.words = self._take(words)

    def _take(self, words: list[str]) -> list[str]:
        """Take the leading directory options; the rest is for the parser."""
        while words:
            name, equals, value = words[0].partition("=")
            if name not in ("--run-dir", "--data-dir"):
                break
            if not equals:
                if len(words) < 2:
                    fail(f"{name} needs a directory", 2)
                value = words.pop(1)
            words = words[1:]
            setattr(self, name[2:].replace("-", "_"), os.path.abspath(value))
        return words


def fail(message: str, status: int, hint: str = "") -> None:
    """Say what is wrong and end."""
    sys.stderr.write(f"pycore: {message}\n" + (f"  {hint}\n" if hint else ""))
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """The ``pycore`` command. Ends the process."""
    option = Option(sys.argv[1:])
    words = option.words
    verb = next((word for word in words if not word.startswith("-")), "help")
    if verb in LOCAL or not words or words[0] in ("-h", "--help", "--version") or _asks_for_help(verb, words):
        from pycore.cli import main_local

        sys.exit(main_local(words, option.run_dir, option.data_dir))
    if os.geteuid() != 0:
        fail(
            f"`pycore {verb}` needs root: namespaces, mounts and networks are made for the container",
            125 if verb == "run" else 1,
            f"sudo pycore {verb} ...",
        )
    status = ask(option)
    if status is None:  # it was just ending when we came
        status = ask(option)
    if status is None:
        fail("the supervisor ended before it answered", 125 if verb == "run" else 1, "pycore doctor")
    # Nothing is left to be written or freed: skip what the interpreter does at its end.
    os._exit(status or 0)


def _asks_for_help(verb: str, words: list[str]) -> bool:
    """Whether ``-h`` or ``--help`` is meant for us and not for the program of a ``run``."""
    return verb != "run" and any(word in ("-h", "--help") for word in words)


def ask(option: Option) -> int | None:
    """Have the supervisor do it; the exit status, or None when it hung up without one."""
    import _socket

    connection = connect(option)
    request = "\0".join(
        (
            REQUEST_VERSION,
            option.data_dir,
            os.getcwd(),
            str(len(option.words)),
            *option.words,
            *(f"{key}={value}" for key, value in os.environ.items()),
        )
    ).encode("utf-8", "surrogateescape")
    fds = b"".join(_open_or_null(fd).to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    frame = len(request).to_bytes(4, "big") + request
    sent = connection.sendmsg([frame], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)], _socket.MSG_NOSIGNAL)
    if sent < len(frame):
        connection.sendall(frame[sent:])
    _forward_signals(connection)
    answer = b""
    while len(answer) < 4:
        try:
            data = connection.recv(4 - len(answer))
        except ConnectionResetError:
            return None
        if not data:
            return None
        answer += data
    return int.from_bytes(answer, "big")


def _forward_signals(connection: object) -> None:
    """Pass signals on; what they mean is decided where the container is."""
    import _signal  # type: ignore[import-not-found]

    def forward(number: int, _: object) -> None:
        try:
            connection.send(bytes((number,)))  # type: ignore[attr-defined]  # a _socket.socket
        except OSError:
            os._exit(128 + number)

    for number in FORWARDED:
        _signal.signal(number, forward)  # pyright: ignore[reportUnknownMemberType]


def _open_or_null(fd: int) -> int:
    try:
        os.fstat(fd)
    except OSError:
        return os.open(os.devnull, os.O_RDWR)
    return fd


def connect(option: Option):  # type: ignore[no-untyped-def]  # -> _socket.socket
    """A connection to the run dir's supervisor, which is started where there is none."""
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        directory = os.open(option.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    else:
        # A socket's address holds 107 bytes; by way of the descriptor the run dir may be of any length.
        try:
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET_FILE}")
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        finally:
            os.close(directory)
    from pycore.supervisor import start_supervisor

    try:
        start_supervisor(option.run_dir, option.data_dir)
        directory = os.open(option.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{directory}/{SOCKET_FILE}")
    except OSError as error:
        fail(
            f"cannot start a supervisor in {option.run_dir}: {error.strerror}",
            125,
            "choose another place with --run-dir",
        )
    return connection
