"""Sockets and files of a container, taken hold of from outside, without a process in there.

Everything in a container is hostile: its links are resolved below its root, and what is opened there is only
looked at, or connected to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket

from pycore.errors import ProbeFailed
from pycore.hookspecs import Inside
from pycore.linux import libc, netns

_TRIES = 8
"""openat2(2) says EAGAIN where something on the way is renamed just then; a container can do that for good."""


def socket_in(inside: Inside, family: socket.AddressFamily) -> socket.socket:
    """A stream socket in the container's network, whatever thread it is used by then. Raises OSError."""
    return netns.socket_in(inside.pidfd, lambda: socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))


def open_path(inside: Inside, path: str) -> int:
    """An O_PATH descriptor of a path in the container, which may be anything: a pipe or a device is not opened.

    Raises OSError, and ProbeFailed where the container has ended.
    """
    root = _root(inside)
    try:
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                return libc.openat2(root, path, os.O_PATH)
    finally:
        os.close(root)
    raise ProbeFailed(f"{path}: is being renamed all the time")


def _root(inside: Inside) -> int:
    """The root directory of the container's first process."""
    try:
        root = os.open(f"/proc/{inside.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise ProbeFailed("the container has ended") from None
    try:
        # Alive after the directory was opened: so the number was this process's all along, and no later one's.
        signal.pidfd_send_signal(inside.pidfd, 0)
    except OSError as error:
        os.close(root)
        if isinstance(error, ProcessLookupError):
            raise ProbeFailed("the container has ended") from None
        raise
    return root
