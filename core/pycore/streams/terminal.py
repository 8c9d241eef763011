"""What stands between a client's terminal and a container's: raw mode, window size, and the keys that detach."""

from __future__ import annotations

import contextlib
import os
import termios
import tty

DETACH_KEYS = "ctrl-p,ctrl-q"

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31} | {chr(97 + n): n + 1 for n in range(26)}


def parse_keys(text: str) -> bytes:
    """The bytes of keys as Docker writes them: ``a,ctrl-x``; none for an empty string. Raises ValueError."""
    return b"".join(_key(word) for word in text.split(",")) if text else b""


def _key(word: str) -> bytes:
    if len(word) == 1 and word.isascii():
        return word.encode()
    name = word.lower().removeprefix("ctrl-")
    if name == word.lower() or name not in _CONTROL:
        raise ValueError(f"{word!r} is no key: a character, or ctrl- with a letter or one of @ [ \\ ] ^ _")
    return bytes((_CONTROL[name],))


class DetachKeys:
    """Looks for the keys in what is typed, and holds back what may be their beginning."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on by now, and whether the keys have been pressed."""
        text = self._held + data
        place = text.find(self._keys) if self._keys else -1
        if place >= 0:
            self._held = b""
            return text[:place], True
        held = next((n for n in range(len(self._keys) - 1, 0, -1) if text.endswith(self._keys[:n])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False


class RawMode:
    """A client's terminal in raw mode: each key goes to the container as it is, ctrl-c too.

    Any process that has a terminal open may set it, whatever session it belongs to (tty_ioctl(4)); so it is done,
    and undone whatever happens, by who relays, and not by the client, who may be killed.
    """

    def __init__(self, fd: int) -> None:
        """Raises termios.error where it is no terminal, or has hung up."""
        self._fd = fd
        self._before = termios.tcgetattr(fd)
        self._raw = self._before
        self.set()

    def set(self) -> None:
        """Be raw; again after the client was stopped."""
        with contextlib.suppress(termios.error):
            tty.setraw(self._fd, termios.TCSANOW)
            self._raw = termios.tcgetattr(self._fd)

    def restore(self) -> None:
        """Be as before; unless somebody else, the shell of a client that was killed, has set it meanwhile."""
        with contextlib.suppress(termios.error):
            if termios.tcgetattr(self._fd) == self._raw:
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns of a terminal; zeros where it is none, or does not know."""
    try:
        rows, columns = termios.tcgetwinsize(fd)
    except termios.error:
        return 0, 0
    return rows, columns


def set_window_size(fd: int, size: tuple[int, int]) -> None:
    """Let a terminal have that size; the kernel tells its programs (SIGWINCH). One that has hung up is fine."""
    with contextlib.suppress(termios.error):
        if size != (0, 0):
            termios.tcsetwinsize(fd, size)


def redraw(fd: int, size: tuple[int, int]) -> None:
    """Have the programs of a terminal draw anew, by two changes of its size."""
    rows, columns = size
    set_window_size(fd, (min(rows + 1, 0xFFFF), columns))
    set_window_size(fd, size)


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is a terminal."""
    return os.isatty(fd)
