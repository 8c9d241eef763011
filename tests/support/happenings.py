"""What happens to a test's containers, as it happens: ``pycore events`` on another process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

from support.command import Command

Event = dict[str, Any]


class Happenings:
    """All events of a run dir, from its first one on."""

    def __init__(self, pycore: Command, seconds: float = 30) -> None:
        self.events: list[Event] = []
        self._seconds = seconds
        self._rest = b""
        self._process: subprocess.Popen[str] = pycore.popen("events", "--json", "--since", "1970-01-01T00:00:00Z")

    def __enter__(self) -> Happenings:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def until(self, wanted: Callable[[Event], bool], times: int = 1) -> Event:
        """Wait until so many events are of a kind; the last of them."""
        deadline = time.monotonic() + self._seconds
        while len(found := list(filter(wanted, self.events))) < times:
            self._read(deadline)
        return found[times - 1]

    def word(self, what: str, times: int = 1) -> Event:
        """Wait until something has happened so many times."""
        return self.until(lambda event: event["what"] == what, times)

    def health(self, word: str, times: int = 1) -> Event:
        """Wait until a container has become healthy, or unhealthy, so many times."""
        return self.until(lambda event: event["what"] == "health" and event["health"] == word, times)

    def of(self, what: str, container: str) -> list[Event]:
        """What has happened to a container so far, as far as it was waited for."""
        return [event for event in self.events if event["what"] == what and event.get("container") == container]

    def words(self) -> list[str]:
        """What has happened so far, as far as it was waited for."""
        return [event["what"] for event in self.events]

    def _read(self, deadline: float) -> None:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"did not come in {self._seconds} s; there was {self.events}"
        data = os.read(self._process.stdout.fileno(), 1 << 16)
        assert data, f"pycore events has ended; there was {self.events}"
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.events += map(json.loads, lines)
