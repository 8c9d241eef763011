"""Fresh interpreters: how the supervisor and the spawner come to be.

Not forks: whoever starts one may have threads, and leaves it neither memory nor descriptors. Isolated and
without site (``-I -S``), with the caller's module path, so it starts fast and finds the same plugins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

FIRST = 3
"""The number of the first descriptor that is handed over."""


def start(
    module: str, arguments: Sequence[str], fds: Sequence[int], environment: Mapping[str, str], stderr: int | None
) -> int:
    """Run ``main()`` of a module in a new session, with ``fds`` as descriptors 3 and up; the process id.

    Standard input and output are /dev/null; ``stderr`` is too where it is -1, and the caller's where it is None.
    Nothing else stays open. ``fds`` stay the caller's. Raises OSError.
    """
    end = FIRST + len(fds)
    code = (
        f"import os, sys; os.closerange({end}, 1 << 30); sys.path[:] = {sys.path!r}; "
        f"[os.set_inheritable(fd, False) for fd in range({FIRST}, {end})]; from {module} import main; main()"
    )
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    held = [null]
    try:
        moves = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        if stderr is not None:
            moves.append((os.POSIX_SPAWN_DUP2, null if stderr < 0 else stderr, 2))
        for target, fd in enumerate(fds, FIRST):
            moves.append((os.POSIX_SPAWN_DUP2, _above(end, fd, held), target))
        command = [sys.executable, "-I", "-S", "-c", code, *arguments]
        return os.posix_spawn(sys.executable, command, environment, file_actions=moves, setsid=True)
    finally:
        for fd in held:
            os.close(fd)


def _above(end: int, fd: int, held: list[int]) -> int:
    """A duplicate out of the way of the numbers that are assigned, which would overwrite one another."""
    while True:
        fd = os.dup(fd)
        held.append(fd)
        if fd >= end:
            return fd
