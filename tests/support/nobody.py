"""A normal user who runs ``pycore``: with ids of their own for containers, or none, and nothing else of the host's.

What such a user finds on a host differs (subuid(5), the mode of /dev/net/tun, whether they can read our interpreter),
so each command runs in a mount namespace where it is as the test says; nothing of the host is touched.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.command import Command

USER = 64321
"""Nobody's number on any host that tests run on."""
FIRST, COUNT = 300000, 65536
"""The ids that were given to that user."""

_SCRIPT = r"""#!/bin/sh
exec {enter} unshare --mount --propagation slave sh -c '
set -e
own="{own}"
mount -t tmpfs -o mode=755 none "$own"
cp /etc/passwd /etc/group "$own"
echo "tester:x:{user}:{user}::{home}:/bin/sh" >> "$own/passwd"
echo "tester:x:{user}:" >> "$own/group"
echo "{ids}" > "$own/subuid"
echo "nameserver {servers}" > "$own/resolv.conf"
mknod -m 666 "$own/tun" c 10 200
for name in passwd group resolv.conf; do mount --bind "$own/$name" "/etc/$name"; done
for name in subuid subgid; do [ ! -e "/etc/$name" ] || mount --bind "$own/subuid" "/etc/$name"; done
[ ! -e /dev/net/tun ] || mount --bind "$own/tun" /dev/net/tun
{opened}
export PYTHONPATH="{modules}" PYTHONDONTWRITEBYTECODE=1 HOME="{home}"
exec setpriv --reuid {user} --regid {user} --clear-groups "{python}" -c "from pycore.client import main; main()" "$@"
' pycore "$@"
"""


def _opened(paths: Iterable[str]) -> Iterator[str]:
    """Lines that let everybody get to directories which lie below one that is root's alone: over that one an empty one
    is mounted, with nothing but them in it.
    """
    shut: dict[str, list[str]] = {}
    for path in paths:
        above = [str(each) for each in reversed(Path(path).parents)]
        closed = next((each for each in above if not os.stat(each).st_mode & stat.S_IXOTH), "")
        if closed:
            shut.setdefault(closed, []).append(path)
    for number, (closed, inside) in enumerate(shut.items()):
        for index, path in enumerate(inside):
            yield f'mkdir "$own/{number}.{index}"; mount --bind "{path}" "$own/{number}.{index}"'
        yield f'mount -t tmpfs -o mode=755 none "{closed}"'
        for index, path in enumerate(inside):
            yield f'mkdir -p "{path}"; mount --bind "$own/{number}.{index}" "{path}"'


def _outermost(paths: Iterable[str]) -> list[str]:
    found: list[str] = []
    for path in sorted(map(os.path.realpath, paths)):
        if not any(f"{path}/".startswith(f"{other}/") for other in found):
            found.append(path)
    return found


@dataclass
class Nobody:
    """That user's command and home directory."""

    command: Command
    home: Path


@contextmanager
def somebody(*, ranges: bool, servers: str = "192.0.2.53", namespace: int = 0) -> Iterator[Nobody]:
    """A user with ``ranges`` of ids or without, for a with block.

    ``namespace`` is a process in whose network they are.
    """
    top = Path(tempfile.mkdtemp(prefix="pycore-nobody-"))
    home, own = top / "home", top / "own"
    for directory in (home, own):
        directory.mkdir()
    top.chmod(0o755)
    os.chown(home, USER, USER)
    modules = [path for path in dict.fromkeys(sys.path) if path and os.path.isdir(path)]
    python = os.path.realpath(sys.executable)
    script = top / "pycore"
    script.write_text(
        _SCRIPT.format(
            enter=f"nsenter --net=/proc/{namespace}/ns/net" if namespace else "",
            own=own, home=home, user=USER, servers=servers, python=python, modules=":".join(modules),
            ids=f"tester:{FIRST}:{COUNT}" if ranges else "",
            opened="\n".join(_opened(_outermost([sys.base_prefix, *modules]))),
        )
    )  # fmt: skip
    script.chmod(0o755)
    command = Command(home, script)
    try:
        yield Nobody(command, home)
        command.end()
    finally:
        shutil.rmtree(top)
