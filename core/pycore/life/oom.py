"""What the kernel says of containers that run out of memory, at the moment when it says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from pycore.hookspecs import Alarm, AlarmSource
from pycore.launch.poller import Poller


class OomWatch:
    """The alarms of all containers that run, on one thread that sleeps until one of them rings.

    ``tell`` is called with a container's id, on that thread or in :meth:`end`; it must not call back.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._alarms: dict[str, Alarm] = {}
        self._lock = threading.Lock()
        """Held while telling too: what :meth:`end` is followed by comes after all that was told."""
        self._poller: Poller | None = None

    def begin(self, identity: str, source: AlarmSource | None) -> None:
        """Listen for a container; where its host has no alarm, nothing is heard."""
        if source is None:
            return
        try:
            alarm = source.open()
        except OSError:
            return
        with self._lock:
            self._alarms[identity] = alarm
            if self._poller is None:
                self._poller = Poller("pycore-oom")
            self._poller.add(alarm.fileno(), partial(self._rung, identity), alarm.events)

    def _rung(self, identity: str, _: int) -> None:
        with self._lock:
            alarm = self._alarms.get(identity)
            if alarm and alarm.heard():
                self._tell(identity)

    def end(self, identity: str) -> None:
        """Listen no longer. What has happened until now is told before this returns."""
        with self._lock:
            alarm = self._alarms.pop(identity, None)
            if alarm is None or self._poller is None:
                return
            if alarm.heard():
                self._tell(identity)
            self._poller.remove(alarm.fileno())
            alarm.close()

    def close(self) -> None:
        """Listen to nobody any more."""
        with self._lock:
            poller, self._poller = self._poller, None
            alarms, self._alarms = self._alarms, {}
        if poller:
            poller.stop()
        for alarm in alarms.values():
            alarm.close()
