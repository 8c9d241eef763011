"""What lets a normal user make containers: a user namespace in which pycore is root (user_namespaces(7)).

All of pycore that acts is in it, supervisor and spawner, and so is every container: what root does elsewhere, that
root does here, as far as the kernel lets it. A later supervisor goes to where the containers of an earlier one are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pycore.errors import SupervisorError
from pycore.linux import libc

RECORD = "user-namespace"
"""What the kernel calls the namespace that the containers of a run dir are in."""

_NEW = libc.CLONE_NEWUSER | libc.CLONE_NEWNS
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
     "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
)  # fmt: skip
"""What hosts forbid it with, the value that does, and the line that allows it."""


def check() -> None:
    """Raises SupervisorError where this host lets normal users have no such namespace; changes nothing."""
    number = _in_child(_try)
    if number:
        raise _refused(OSError(number, os.strerror(number)))


def enter(run_dir: str | os.PathLike[str], *, record: bool) -> None:
    """Be root of a user namespace, with a mount namespace to go with it; for root there is nothing to do.

    It is the one in which containers of the run dir are, if there are any. With ``record`` it is the one for those to
    come. For a process that has one thread. Raises SupervisorError.
    """
    if os.geteuid() == 0:
        return
    place = Path(run_dir) / RECORD
    try:
        if not _go_to_containers(place):
            _make()
        if record:
            place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            place.write_text(os.readlink("/proc/self/ns/user"), encoding="ascii")
    except OSError as error:
        raise _refused(error) from error


def ranges(path: str, *names: str) -> list[tuple[int, int]]:
    """(first, how many) ids that /etc/subuid or /etc/subgid, see subuid(5), gives to a user by name or number."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, numbers = line.strip().partition(":")
            first, _, count = numbers.partition(":")
            if name in names and first.isdigit() and count.isdigit() and int(count):
                found.append((int(first), int(count)))
    return found


def _refused(error: OSError) -> SupervisorError:
    mend = "this host may forbid user namespaces; a security module that does says so in its log"
    for path, value, line in _SWITCHES:
        with contextlib.suppress(OSError):
            if Path(path).read_text(encoding="ascii").strip() == value:
                mend = f"as root: {line}"
                break
    return SupervisorError(f"a normal user can have no user namespace here: {error.strerror}", hint=mend)


# -- the namespace of containers that run ----------------------------------------------------------------


def _go_to_containers(place: Path) -> bool:
    """Join the namespace that was recorded, through any process of ours in it; False where there is none."""
    try:
        name = place.read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/user") != name:
                continue
            pidfd = os.pidfd_open(int(pid))
            try:
                libc.setns(pidfd, libc.CLONE_NEWUSER)
            finally:
                os.close(pidfd)
            if os.readlink("/proc/self/ns/user") == name:
                libc.unshare(libc.CLONE_NEWNS)
                return True
    return False


# -- a new one -------------------------------------------------------------------------------------------


def _make() -> None:
    """With all the ids that the user was given, by newuidmap(1), which may map them; else with the user's own alone."""
    user, group = os.geteuid(), os.getegid()
    words = {name: _words(name, own) for name, own in (("uid", user), ("gid", group))}
    if not all(words.values()):
        libc.unshare(_NEW)
        _map_alone(user, group)
        return
    waits, ours = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(ours)
        _map_for(os.getppid(), waits, words)
    os.close(waits)
    try:
        libc.unshare(_NEW)
        os.write(ours, b"x")
    finally:
        os.close(ours)
        _, status = os.waitpid(helper, 0)
    if os.waitstatus_to_exitcode(status):
        _map_alone(user, group)


def _words(kind: str, own: int) -> list[str]:
    """What to tell newuidmap or newgidmap: root is the user; empty without the program, or without ids."""
    import pwd

    user = os.geteuid()
    names = [str(user)]
    with contextlib.suppress(KeyError):
        names.append(pwd.getpwuid(user).pw_name)
    given = ranges(f"/etc/sub{kind}", *names)
    program = shutil.which(f"new{kind}map", path="/usr/local/bin:/usr/bin:/bin")
    if not given or program is None:
        return []
    words, inside = [program, "0", str(own), "1"], 1
    for first, count in given:
        words += [str(inside), str(first), str(count)]
        inside += count
    return words


def _map_for(pid: int, waits: int, words: dict[str, list[str]]) -> NoReturn:
    """In a process that stays outside: write the maps of one that has gone inside."""
    status = 1
    try:
        if os.read(waits, 1):
            quiet = subprocess.DEVNULL
            commands = ([each[0], str(pid), *each[1:]] for each in words.values())
            results = (subprocess.call(each, stdin=quiet, stdout=quiet, stderr=quiet) for each in commands)
            status = int(any(results))
    finally:
        os._exit(status)


def _map_alone(user: int, group: int) -> None:
    """One id of each kind, which everybody may map for themselves; without setgroups(2) then."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1\n"), ("gid_map", f"0 {group} 1\n")):
        try:
            Path("/proc/self", name).write_text(text, encoding="ascii")
        except OSError as error:
            if error.errno != errno.EPERM or name == "setgroups":
                raise
            if not Path("/proc/self", name).read_text(encoding="ascii").strip():
                raise  # else newuidmap has written this one


def _try() -> None:
    user, group = os.geteuid(), os.getegid()
    libc.unshare(_NEW)
    _map_alone(user, group)
    libc.mount("tmpfs", "/sys", "tmpfs", 0, None)  # AppArmor lets them be made, and nothing be done in them


def _in_child(act: Callable[[], object]) -> int:
    """The errno that an act in a process of its own fails with; 0 where it does not."""
    child = os.fork()
    if child == 0:
        number = errno.EIO
        try:
            act()
            number = 0
        except OSError as error:
            number = error.errno or errno.EIO
        finally:
            os._exit(number)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
