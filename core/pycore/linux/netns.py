"""A socket in another network namespace: it belongs to the one in which it was made, wherever it is used later."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from pycore.linux import libc

_Make = Callable[[], socket.socket]


def socket_in(namespace: int, make: _Make) -> socket.socket:
    """What ``make`` returns, called in the network namespace of a descriptor of it, or of a pidfd. Raises OSError.

    setns(2) moves the calling thread alone. It comes back where it may; a normal user's pycore has no power over the
    namespace that it is in, so there it is a thread of its own that goes, and ends.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            libc.setns(own, libc.CLONE_NEWNET)  # to where we are: tells whether we may come back
        except PermissionError:
            return _by_thread(namespace, make)
        libc.setns(namespace, libc.CLONE_NEWNET)
        try:
            return make()
        finally:
            libc.setns(own, libc.CLONE_NEWNET)
    finally:
        os.close(own)


def _by_thread(namespace: int, make: _Make) -> socket.socket:
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def go() -> None:
        try:
            libc.setns(namespace, libc.CLONE_NEWNET)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=go, name="pycore-inside", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
