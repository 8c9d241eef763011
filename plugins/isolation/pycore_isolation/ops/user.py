"""Becoming the container's user, by the container's own /etc/passwd and /etc/group.

Both files come from an image, so nothing in them is trusted: they are read up to a limit, a line that is
not well formed is passed over, and numbers are checked.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pycore.errors import PycoreError
from pycore.linux.kernel import MAX_FILE
from pycore.ops import Context, Operation
from pycore.steps import Step

MAX_ID = (1 << 32) - 2
"""The highest user or group id; all ones means "no change" to setresuid(2)."""

MAX_GROUPS = 65536
"""NGROUPS_MAX of setgroups(2)."""


@dataclass(frozen=True)
class Identity:
    """Who the program runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def number(text: str) -> int | None:
    """A user or group id, or None for anything that is not one."""
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    return int(text) if int(text) <= MAX_ID else None


def resolve(user: str, extra_groups: Sequence[str], passwd: str, group: str) -> Identity:
    """Find an identity as Docker does (moby/sys/user, GetExecUser).

    ``user`` is ``"USER"`` or ``"USER:GROUP"``, each a name or a number. A user that passwd(5) lists has its
    primary group and home from there, and the supplementary groups of group(5) unless a group is named; a
    number that is not listed has group 0 and home ``/``. Raises PycoreError for a name that is not listed.
    """
    wanted_user, _, wanted_group = user.partition(":")
    uid, gid, home, name = number(wanted_user), 0, "/", None
    for fields in _lines(passwd, 7):
        if fields[0] == wanted_user or (uid is not None and number(fields[2]) == uid):
            uid, gid, home, name = number(fields[2]), number(fields[3]) or 0, fields[5] or "/", fields[0]
            break
    if uid is None:
        raise PycoreError(
            f"no user {wanted_user!r} in the container's /etc/passwd", hint='use a number, as in user = "1000:1000"'
        )
    groups: list[int] = []
    if wanted_group:
        gid = _group_id(wanted_group, group)
    elif name is not None:
        groups = [int(fields[2]) for fields in _lines(group, 4, name) if name in fields[3].split(",")]
    groups += [_group_id(extra, group) for extra in extra_groups]
    return Identity(uid, gid, tuple(dict.fromkeys(groups))[:MAX_GROUPS], home)


def _lines(text: str, count: int, word: str = "") -> Iterator[list[str]]:
    """The lines of passwd(5) or group(5) with a word in them, as many fields as there should be, a number the third."""
    for line in text.splitlines():
        if word not in line:
            continue
        fields = line.split(":")
        if len(fields) == count and number(fields[2]) is not None:
            yield fields


def _group_id(wanted: str, group: str) -> int:
    for fields in _lines(group, 4):
        if fields[0] == wanted:
            return int(fields[2])
    gid = number(wanted)
    if gid is None:
        raise PycoreError(f"no group {wanted!r} in the container's /etc/group", hint="use the group's number")
    return gid


@dataclass(frozen=True)
class BecomeUser(Operation):
    """Become the user the program runs as, and say where its home is unless the spec does."""

    step = Step.USER
    user: str
    groups: tuple[str, ...]

    def do(self, ctx: Context) -> None:
        passwd, group = (_read(ctx, path) for path in ("/etc/passwd", "/etc/group"))
        identity = resolve(self.user, self.groups, passwd, group)
        ctx.environment.setdefault("HOME", identity.home)
        try:
            if ctx.terminal >= 0:  # its program opens it anew, as /dev/tty, or by name
                ctx.kernel.give_file(ctx.terminal, identity.uid)
            ctx.kernel.set_user(identity.uid, identity.gid, identity.groups)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise PycoreError(
                f"{self.explain()}: an id is not one of the container's user namespace",
                hint='let userns have more ids, as in userns = "auto"',
            ) from error

    def explain(self) -> str:
        extra = f", also in {', '.join(self.groups)}" if self.groups else ""
        return f"become user {self.user}{extra}"


def _read(ctx: Context, path: str) -> str:
    try:
        return ctx.kernel.read_inside(path, MAX_FILE)
    except FileNotFoundError:
        return ""
