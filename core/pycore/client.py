"""The command, as thin as it can be: it hands its words and its descriptors to the supervisor and waits.

Start-up is what a command costs (docs/architecture.md), so nothing is imported that the way to the
supervisor does not need: ``_socket`` and ``_signal`` are what ``socket`` and ``signal`` wrap, without the
enum classes that take longer to build than a container takes to start.
"""

from __future__ import annotations

import os
import sys

from pycore import __version__, places

TYPE_CHECKING = False  # as type checkers know it, without importing typing
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812  # as a type
    from collections.abc import Sequence

LOOKING = ("plan", "doctor", "supervise")
"""Those of the next that look at the host as who changes it."""
LOCAL = ("check", "plan", "plugins", "schema", "doctor", "supervise", "systemd", "help")
"""Verbs that change nothing, and the supervisor itself: they are done in this process."""

PROTOCOL = 2
"""What client and supervisor say to each other; 1 knew exit statuses only."""
VERSION = f"{__version__}/{PROTOCOL}"
SOCKET_FILE = "pycore.sock"

OTHER_VERSION = 0xFFFFFFFF
"""An answer that is no exit status: the supervisor is of the version that follows. Every version says it so."""
RESUME = 0xFFFFFFFE
"""An answer that is no exit status: should the supervisor end, the words that follow find out what came of it."""
GO_ON = "go on"
"""In the place of a request's version: its words are from an earlier supervisor, of whatever version it was."""
TRIES = 5
"""Supervisors that may end one after the other before they even begin."""
FORWARDED = (1, 2, 3, 10, 12, 15)  # HUP INT QUIT USR1 USR2 TERM
OF_TERMINAL = (18, 20, 28)  # CONT TSTP WINCH
SHARING = ("run", "exec", "attach", "start")
"""Verbs that may share our terminal with a container; others do not pay for it."""
STARTING = ("run", "exec", "create")
"""Verbs whose last words are a program's; where pycore itself fails they end with 125."""


class Option:
    """The options before the verb: where things are."""

    def __init__(self, words: list[str]) -> None:
        self.run_dir = os.environ.get("PYCORE_RUN_DIR") or places.run_dir()
        self.data_dir = os.environ.get("PYCORE_DATA_DIR") or places.data_dir()
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


def verb_of(words: Sequence[str]) -> str:
    """The verb of a command line: ``help``, where it has none."""
    return next((word for word in words if not word.startswith("-")), "help")


def fail(message: str, status: int, hint: str = "") -> None:
    """Say what is wrong and end."""
    sys.stderr.write(f"pycore: {message}\n" + (f"  {hint}\n" if hint else ""))
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """The ``pycore`` command. Ends the process."""
    option = Option(sys.argv[1:])
    words = option.words
    verb = verb_of(words)
    if _is_local(verb, words) or not words or words[0] in ("-h", "--help", "--version") or _asks_for_help(verb, words):
        if os.geteuid() and verb in LOOKING and not _asks_for_help(verb, words):
            _be_root(option.run_dir, record=verb == "supervise")
        from pycore.cli import main_local

        sys.exit(main_local(words, option.run_dir, option.data_dir))
    try:
        status = ask(option, Settings(verb))
    except KeyboardInterrupt:  # before there was a supervisor to be told of it
        os._exit(130)
    if status is None:
        fail(
            "the supervisor ended before it answered",
            125 if verb in STARTING else 1,
            "pycore ps -a says how far it came",
        )
    # Nothing is left to be written or freed: skip what the interpreter does at its end.
    os._exit(status or 0)


def _be_root(run_dir: str, record: bool) -> None:
    """A normal user's pycore sees the host as the one that acts does."""
    from pycore.errors import SupervisorError
    from pycore.linux import rootless

    try:
        rootless.enter(run_dir, record=record)
    except SupervisorError as error:
        fail(error.message, error.exit_status, error.hint or "")


def _is_local(verb: str, words: list[str]) -> bool:
    """Whether a verb is done in this process."""
    return verb in LOCAL and "--repair" not in words


def _asks_for_help(verb: str, words: list[str]) -> bool:
    """Whether ``-h`` or ``--help`` is meant for us and not for the program of a ``run``."""
    return verb not in STARTING and any(word in ("-h", "--help") for word in words)


def ask(option: Option, settings: Settings) -> int | None:
    """Have the supervisor do it; the exit status, or None when it hung up in the middle of it.

    A supervisor may end at any moment, be it that another version takes its place: what it has not begun is asked
    again of the next one, and what can be gone on with is.
    """
    line, version, words, tries = Line(settings), VERSION, option.words, 0
    while tries < TRIES:
        tries += 1
        connection = connect(option)
        resume: list[str] | None = None
        begun = line.send(connection, _request(option, version, words))
        while begun:
            head = _read(connection, 4, line)
            if head is None:
                settings.restore()
                begun = line.sent
                break
            answer = int.from_bytes(head, "big")
            if answer < RESUME:
                return answer
            text = _read(connection, int.from_bytes(_read(connection, 4, line) or b"", "big"), line) or b""
            if answer == RESUME:
                resume = text.decode("utf-8", "surrogateescape").split("\0")
                line.sent = True
            else:
                from pycore.resident.succession import succeed

                succeed(option, text.decode())
                begun = False
                break
        if resume:
            version, words, tries = GO_ON, resume, 0
        elif begun:
            return None
    return None


def _request(option: Option, version: str, words: list[str]) -> bytes:
    request = "\0".join(
        (
            version,
            option.data_dir,
            os.getcwd(),
            str(len(words)),
            *words,
            *(f"{key}={value}" for key, value in os.environ.items()),
        )
    ).encode("utf-8", "surrogateescape")
    return len(request).to_bytes(4, "big") + request


def _read(connection: Socket, size: int, line: Line) -> bytes | None:
    """So many bytes; None where it hung up."""
    data = b""
    while len(data) < size:
        try:
            more = connection.recv(size - len(data))
        except ConnectionResetError:
            return None  # it did not read what we have sent
        if not more:
            line.sent = True
            return None
        data += more
    return data


class Settings:
    """Our terminal as it was before a supervisor shared it with a container.

    The supervisor puts that back itself, unless it is killed.
    """

    def __init__(self, verb: str) -> None:
        self.known: list[object] | None = None
        """None where nobody can share a terminal."""
        if verb in SHARING and os.isatty(0):
            import termios

            self.known = termios.tcgetattr(0)

    def restore(self) -> None:
        """Put it back, where it is not so."""
        if self.known is None:
            return
        import termios

        try:
            if termios.tcgetattr(0) != self.known:
                termios.tcsetattr(0, termios.TCSANOW, self.known)  # type: ignore[arg-type]  # as it was got
        except termios.error:
            pass  # it has hung up


class Line:
    """The way to the supervisor of the moment: the request goes there first, then a byte for every signal that we get.

    What a signal means is decided where the container is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sent = False
        """Whether the request was read: it must not be asked a second time."""
        self._connection: Socket | None = None
        self._waiting = bytearray()
        """Signals that came while there was no supervisor."""
        self._listening = False

    def send(self, connection: Socket, frame: bytes) -> bool:
        """Send a request with our standard streams. False where the supervisor was just ending."""
        import _socket

        self.sent = False
        if not self._listening:
            self._listen()  # before the request is there: what follows from it may be seen, and answered with a signal
        fds = b"".join(_open_or_null(fd).to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
        try:
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)]
            size = connection.sendmsg([frame], rights, _socket.MSG_NOSIGNAL)
            if size < len(frame):
                connection.sendall(frame[size:])
            self._connection = connection  # from here on signals go there themselves
            while self._waiting:
                connection.sendall(self._waiting[:1])
                del self._waiting[:1]
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _listen(self) -> None:
        """From now on signals are meant for the container."""
        import _signal  # type: ignore[import-not-found]

        self._listening = True
        for number in FORWARDED if self._settings.known is None else FORWARDED + OF_TERMINAL:
            _signal.signal(number, self._forward)  # pyright: ignore[reportUnknownMemberType]

    def _forward(self, number: int, _: object) -> None:
        if not self._passed_on(number):
            self._waiting.append(number)
        if number == 20:  # the shell's turn, with its terminal as it knows it
            self._settings.restore()
            os.kill(os.getpid(), 19)

    def _passed_on(self, number: int) -> bool:
        if self._connection is None:
            return False  # the request goes first
        self.sent = True  # from now on a hang-up does not say whether our request was read
        try:
            self._connection.send(bytes((number,)))
        except OSError:
            return False
        return True


def _open_or_null(fd: int) -> int:
    try:
        os.fstat(fd)
    except OSError:
        return os.open(os.devnull, os.O_RDWR)
    return fd


def connect(option: Option) -> Socket:
    """A connection to the run dir's supervisor, which is started where there is none."""
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        directory = os.open(option.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    else:
        _refuse_foreign(option.run_dir, directory)
        # A socket's address holds 107 bytes; by way of the descriptor the run dir may be of any length.
        try:
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET_FILE}")
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        finally:
            os.close(directory)
    from pycore.errors import SupervisorError
    from pycore.resident.supervisor import start_supervisor

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
    except SupervisorError as error:
        fail(error.message, 125, error.hint or "")
    return connection


def _refuse_foreign(run_dir: str, directory: int) -> None:
    """Whoever owns the run dir gets our environment and our streams: that is nobody else, for a normal user."""
    user = os.geteuid()
    if user and os.fstat(directory).st_uid != user:
        fail(f"{run_dir} is another user's", 125, "choose another place with --run-dir")
