"""Functions that run inside containers."""

from __future__ import annotations

import os


def wait() -> None:
    """Until nobody writes to standard input any more; then who we are."""
    while os.read(0, 100):
        pass
    os.write(1, str(os.getuid()).encode())
