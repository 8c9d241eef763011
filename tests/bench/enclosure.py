"""Namespaces of the benchmark's own: whatever it starts or adds to the network ends with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
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
    if Path("/run/cgroup/cgroup.controllers").exists():
        _do("mount", "--rbind", "/run/cgroup", "/sys/fs/cgroup")
    else:
        _mount_v1_hierarchies()
    _do("ip", "link", "set", "lo", "up")


def _mount_v1_hierarchies() -> None:
    """Those of v1 without the v2 one beside them: crun refuses to run where that has controllers."""
    _do("mount", "-t", "tmpfs", "tmpfs", "/sys/fs/cgroup")
    for hierarchy in Path("/run/cgroup").iterdir():
        if hierarchy.name != "unified" and not hierarchy.is_symlink():
            place = Path("/sys/fs/cgroup") / hierarchy.name
            place.mkdir()
            _do("mount", "--bind", hierarchy, place)


def clear_cgroups() -> None:
    """End what the runtimes left in their control groups, podman its monitors for minutes, and remove them."""
    for name in _CGROUPS:
        for top in [Path("/sys/fs/cgroup") / name, *Path("/sys/fs/cgroup").glob(f"*/{name}")]:
            for path, _, _ in os.walk(top, topdown=False):
                _end_all(path)
                try:
                    os.rmdir(path)
                except OSError as error:
                    print(f"left behind: {path}: {error.strerror}", file=sys.stderr)


def _end_all(cgroup: str) -> None:
    """Kill its processes and see their end."""
    for pid in Path(cgroup, "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(int(pid))
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended = select.poll()
            ended.register(process, select.POLLIN)
            ended.poll(5000)
            os.close(process)


def _do(*command: str | Path) -> None:
    subprocess.run(command, check=True)
