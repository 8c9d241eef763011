"""Namespaces of the benchmark's own: whatever it starts or adds to the network ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

_INSIDE = "PYCORE_BENCH_INSIDE"

CGROUP = "pycore-bench"
_CGROUPS = (CGROUP, "docker", "libpod_parent")
"""What the runtimes of the bench leave in the cgroup hierarchies, which no namespace takes away."""


def enter() -> None:
    """Run this program again in new network, mount and pid namespaces; return once that has happened."""
    if os.environ.get(_INSIDE):
        _leave_process_one()
        _furnish()
    else:
        os.environ[_INSIDE] = "1"
        _enter_new_namespaces()


def _enter_new_namespaces() -> NoReturn:
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", [*unshare, sys.executable, *sys.argv])


def _leave_process_one() -> None:
    """Go on in a child: process 1 waits for the orphans that runtimes leave, and ends as we do."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _furnish() -> None:
    """A /run of our own, a /sys that shows our network devices, and the way to ourselves."""
    _do("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/cgroup").mkdir()
    _do("mount", "--rbind", "/sys/fs/cgroup", "/run/cgroup")
    _do("mount", "-t", "sysfs", "sysfs", "/sys")
    _do("mount", "--rbind", "/run/cgroup", "/sys/fs/cgroup")
    _do("umount", "--lazy", "/run/cgroup")
    if Path("/sys/fs/cgroup/memory").exists() and Path("/sys/fs/cgroup/unified").exists():
        _do("umount", "/sys/fs/cgroup/unified")  # crun refuses a v2 hierarchy with controllers beside v1
    _do("ip", "link", "set", "lo", "up")


def clear_cgroups() -> None:
    """Remove empty control groups that the runtimes left."""
    for name in _CGROUPS:
        for top in [Path("/sys/fs/cgroup") / name, *Path("/sys/fs/cgroup").glob(f"*/{name}")]:
            for path, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(path)
                except OSError as error:
                    print(f"left behind: {path}: {error.strerror}", file=sys.stderr)


def _do(*command: str) -> None:
    subprocess.run(command, check=True)
