"""A child in a namespace of another process, PID or network (namespaces(7)); the caller itself stays where it is.

A process goes to another network namespace and comes back; its own PID namespace it never changes: setns(2) says where
its next children are born. Back to where it was may only go who has power over that namespace, which a normal user's
pycore has not; so there a process in between goes, and does not come back.
"""

from __future__ import annotations

import os

from pycore.linux import libc

_NAMES = {libc.CLONE_NEWPID: "pid", libc.CLONE_NEWNET: "net"}


def clone_into(target: int, kind: int, flags: int = 0) -> tuple[int, int]:
    """clone3(2) with ``flags`` into the namespace of ``target``, a pidfd: (0, -1) in the child, (pid, pidfd) in the
    parent. ``kind`` of namespace is CLONE_NEWPID or CLONE_NEWNET.

    For a process that has one thread. Raises OSError: ESRCH where the target has ended.
    """
    own = os.open(f"/proc/self/ns/{_NAMES[kind]}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _may_return(own, kind):
            return _clone_through_another(target, kind, flags)
        libc.setns(target, kind)
        try:
            pid, pidfd = libc.clone3(flags)
        except OSError:
            _return(own, kind)
            raise
        if pid:
            _return(own, kind)
        return pid, pidfd
    finally:
        os.close(own)


def _may_return(own: int, kind: int) -> bool:
    """Tried by joining the namespace that we are in, which changes nothing."""
    try:
        libc.setns(own, kind)
    except PermissionError:
        return False
    return True


def _return(own: int, kind: int) -> None:
    """Back to our own, where our next child is to be born again; without that we must not go on."""
    try:
        libc.setns(own, kind)
    except OSError:
        os._exit(1)


def _clone_through_another(target: int, kind: int, flags: int) -> tuple[int, int]:
    """One in between that shares our descriptors, so that the pidfd that it gets is ours as well."""
    told, tells = os.pipe()
    between, itself = libc.clone3(libc.CLONE_FILES)
    if between == 0:
        try:
            libc.setns(target, kind)
            pid, pidfd = libc.clone3(libc.CLONE_PARENT | flags, end_signal=0)
        except OSError as error:
            os.write(tells, f"0 {error.errno}".encode())
            os._exit(0)
        if pid == 0:
            os.close(told)
            os.close(tells)
            return 0, -1
        os.write(tells, f"{pid} {pidfd}".encode())
        os._exit(0)
    try:
        os.waitpid(between, 0)
        pid, number = (int(word) for word in os.read(told, 64).split())
    finally:
        for fd in (told, tells, itself):
            os.close(fd)
    if not pid:
        raise OSError(number, os.strerror(number))
    return pid, number
