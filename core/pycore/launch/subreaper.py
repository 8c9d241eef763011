"""While somebody here looks after containers, their orphans become this process's children (prctl(2)).

When a spawner is killed, its containers get us as their parent, who can wait for them.
"""

from __future__ import annotations

import threading

from pycore.linux import libc

_lock = threading.Lock()
_users = 0
_before = False


def acquire() -> None:
    """Be a child subreaper, until as many have let go as have asked."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = libc.child_subreaper()
            libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        _users += 1


def release() -> None:
    """Be again what this process was before: it may be somebody's own, with pycore as a library."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            libc.prctl(libc.PR_SET_CHILD_SUBREAPER, int(_before))
