"""Addresses of unix sockets: they hold 107 bytes (unix(7)), the path of a run dir may hold more."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator


@contextlib.contextmanager
def address(directory: str | os.PathLike[str], name: str) -> Generator[str, None, None]:
    """A short way to a name in a directory, by way of a descriptor; good for the length of the with block."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def listen(directory: str | os.PathLike[str], name: str) -> socket.socket:
    """A socket that listens under a name, for root alone; what was there under that name is gone. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(directory, name) as place:
            listener.bind(place)
            os.chmod(place, 0o600)  # before anybody can connect, and with no umask for other threads to stumble on
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(directory: str | os.PathLike[str], name: str) -> socket.socket | None:
    """A connection to whoever listens under a name; None where nobody does. Raises OSError without the directory."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with address(directory, name) as place:
        try:
            sock.connect(place)
        except OSError:
            sock.close()
            return None
    return sock
