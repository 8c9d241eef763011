"""A container's streams as somebody sees them who attaches to it: its output as it comes, and the way to its input."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pycore.life.live import Live
from pycore.life.pipes import STDIN, TERMINAL
from pycore.logs.pump import LogPump


class Attachment:
    """Listens from when it is made, so also before the container starts; a :class:`pycore.streams.relay.Source`."""

    def __init__(self, pump: LogPump, identity: str) -> None:
        self._tap = pump.tap(identity)
        self._follower = pump.follow([identity])
        self._identity = identity
        self._live: Live | None = None
        self.terminal = -1
        """The container's terminal; -1 without one."""
        self.sink = -1
        """Where its input is written to, without waiting; -1 where it takes none."""

    def connect(self, live: Live | None, stdin: bool = True) -> None:
        """Its process is there; None where it has ended already. ``stdin`` says whether there is to be input."""
        self._live = live
        if live:
            self.terminal = live.duplicate(TERMINAL)
            if stdin:
                self.sink = live.duplicate(TERMINAL if self.terminal >= 0 else STDIN)

    def end_input(self) -> bool:
        """Write nothing more, nor let anybody else: the program's input is to end. Whether it was there to be ended."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1
        return self._live is not None and self._live.drop(STDIN)

    @property
    def identity(self) -> str:
        """The container's id."""
        return self._identity

    def descriptors(self) -> Sequence[int]:
        return (self._tap.fileno(), self._follower.fileno())

    def take(self) -> tuple[Sequence[tuple[int, bytes]], int]:
        self._follower.take()
        return self._tap.take()

    def over(self) -> bool:
        """Whether all of its output has been heard."""
        return self._live is None or self._live.drained is None or self._live.drained.is_set()

    def close(self) -> None:
        """Stop listening."""
        self._tap.close()
        self._follower.close()
        for fd in (self.terminal, self.sink):
            if fd >= 0:
                os.close(fd)
        self.terminal = self.sink = -1
