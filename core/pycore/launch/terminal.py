"""A terminal for the program, opened inside the container: of its own devpts, so that its name means something there.

Nothing of the container's is trusted on the way: what is not the kernel's terminal multiplexer is refused, and the
program's end comes from the other end itself (ioctl_tty(2), TIOCGPTPEER), not from a path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import termios

from pycore.errors import StartError
from pycore.linux import libc
from pycore.linux.kernel import Kernel

_MULTIPLEXER = os.makedev(5, 2)
_GET_PEER, _SET_LOCK = 0x5441, 0x40045431
"""TIOCGPTPEER and TIOCSPTLCK, as asm-generic/ioctls.h has them."""


def open_terminal(name: str, rows: int, columns: int) -> int:
    """Make a new terminal standard streams and controlling terminal; its other end, the master.

    Zero rows and columns are those that nobody knows. ``name`` is the container's, for messages. Raises StartError.
    """
    try:
        master = _master()
        fcntl.ioctl(master, _SET_LOCK, struct.pack("i", 0))
        own = fcntl.ioctl(master, _GET_PEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        message = f"{name}: there is no terminal in the container: {error.strerror}"
        raise StartError(message, step="exec", errno=error.errno or 0, path="/dev/ptmx") from error
    termios.tcsetwinsize(own, (rows, columns))
    for target in (0, 1, 2):
        os.dup2(own, target)
    os.close(own)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    return master


def _master() -> int:
    """/dev/ptmx of the container, looked at before it is opened: opening a pipe or a device may do something."""
    path = libc.open_inside("/dev/ptmx")
    _refuse_other(path)
    os.close(path)
    master = libc.open_inside("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    _refuse_other(master)
    os.set_blocking(master, True)
    return master


def _refuse_other(fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _MULTIPLEXER:
        raise OSError(errno.ENOTTY, "/dev/ptmx is not the terminal multiplexer")


def show_as_console(kernel: Kernel) -> None:
    """Put the terminal of standard input at /dev/console, where programs that start a system look for it.

    No more than a nicety: a container without a /dev to put it in does without.
    """
    with contextlib.suppress(OSError):
        kernel.mount_place(kernel.mount_clone("/proc/self/fd/0", recursive=False), "/dev/console", directory=False)
