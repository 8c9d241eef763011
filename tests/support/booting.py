"""The host starts anew, as far as pycore can tell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from typing import Any

from support.command import Command, wait_readable


def end(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert wait_readable(pidfd, 20)
        os.close(pidfd)


def boot(pycore: Command, *, keep_run_dir: bool = False) -> float:
    """What a boot does: no process is left, and the run dir is empty where it is on a tmpfs. Returns when it was."""
    containers = [row["pid"] for row in pycore.json("ps")]
    end(pycore.supervisor())
    spawners = [int(socket.stem) for socket in (pycore.run_dir / "spawners").iterdir()]
    for pid in (*spawners, *containers):
        end(pid)
    if keep_run_dir:
        (pycore.run_dir / "boot").write_text("another", encoding="ascii")
    else:
        shutil.rmtree(pycore.run_dir)
    return time.time()


def since(moment: float, pycore: Command, until: dict[str, Any]) -> list[tuple[str, str]]:
    """What has happened since then, until something has."""
    follower = pycore.popen("events", "--since", str(moment), "--until", str(time.time() + 20), "--json")
    assert follower.stdout
    seen: list[tuple[str, str]] = []
    for line in follower.stdout:
        event = json.loads(line)
        seen.append((event["what"], f"{event.get('app')}/{event.get('container')}"))
        if until.items() <= event.items():
            break
    else:
        raise AssertionError(seen)
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=20)
    return seen
