"""What a service tells systemd (sd_notify(3)): that it is ready, what it does, that it is about to end."""

from __future__ import annotations

import contextlib
import os
import socket


class Notifier:
    """Tells whoever started this process, if they want to be told."""

    def __init__(self) -> None:
        """Takes ``NOTIFY_SOCKET`` out of the environment: no process that we start speaks in our name."""
        place = os.environ.pop("NOTIFY_SOCKET", "")
        self._place = f"\0{place[1:]}" if place.startswith("@") else place
        self._last = ""

    def __bool__(self) -> bool:
        return self._place[:1] in ("/", "\0")

    def tell(self, *assignments: str) -> None:
        """Send ``READY=1``, ``STATUS=...`` and the like as one message. What was told last is not told again."""
        text = "\n".join(assignments)
        if self and text != self._last:
            self._last = text
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(text.encode(), self._place)
