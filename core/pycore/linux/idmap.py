"""Who owns what on a mount: user namespaces that nobody lives in, made for their maps alone (mount_setattr(2))."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import OrderedDict

from pycore.linux import libc
from pycore.linux.pidfd import pid_of

ALL = (1 << 32) - 1
"""How many ids there are."""
_WALL = 0x40000000
_KEPT = 8

_lock = threading.Lock()
_made: OrderedDict[tuple[str, str], int] = OrderedDict()
"""Namespaces by their maps, for the next container with the same ones: one is a process that is cloned and ends."""


def lines(first: int, count: int, own: tuple[int, int] | None = None) -> str:
    """A map for uid_map or gid_map (user_namespaces(7)): ids 0 to ``count - 1`` of the disk are ``first`` and up.

    With ``own``, (an id of the disk, an id), the one is seen as the other, and the other way round. Raises
    ValueError where that one is beyond ``count``.
    """
    if own is None or own[0] == own[1]:
        return f"0 {first} {count}\n"
    disk, seen = own
    if seen >= count:
        raise ValueError(f"id {seen} is beyond the {count} ids of the user namespace")
    pairs = [(disk, first + seen, 1)]
    if disk < count:
        pairs.append((seen, first + disk, 1))
    start = 0
    for stop in (*sorted({seen, min(disk, count)}), count):
        if stop > start:
            pairs.append((start, first + start, stop - start))
        start = stop + 1
    return "".join(f"{inside} {outside} {length}\n" for inside, outside, length in sorted(pairs))


def back(first: int) -> str:
    """A map the other way: ids ``first`` and up of the disk are 0 and up."""
    return f"{first} 0 {ALL - first}\n"


def namespace(users: str, groups: str) -> int:
    """A user namespace with these maps, as a descriptor, the caller's to close.

    Raises OSError: ENOSPC where the host allows no more of them.
    """
    with _lock:
        found = _made.pop((users, groups), None)
        if found is None:
            found = _make(users, groups)
        _made[users, groups] = found
        if len(_made) > _KEPT:
            os.close(_made.popitem(last=False)[1])
        return os.dup(found)


def _make(users: str, groups: str) -> int:
    """The namespace is that of a process which waits until we have taken hold of it, and then ends."""
    waits, ours = os.pipe()
    try:
        pid, pidfd = libc.clone3(libc.CLONE_NEWUSER, end_signal=0)
        if pid == 0:
            libc.close_all_but((waits,))
            libc.wait_for_hangup(waits)
            os._exit(0)
        try:
            process = f"/proc/{pid_of(pidfd)}"  # by /proc's count, which may not be that of our PID namespace
            for name, text in (("uid_map", users), ("gid_map", groups)):
                with open(f"{process}/{name}", "w", encoding="ascii") as file:
                    file.write(text)
            return os.open(f"{process}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, _WALL)
    finally:
        os.close(waits)
        os.close(ours)
