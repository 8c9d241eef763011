"""How far a fetch is, in words for one line."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pycore_images.content import Descriptor


class Words:
    """Adds the progress of all layers up: ``fetching 120 of 450 MB``. Tells of what has changed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[int, int]] = {}
        self._said = ""

    def progress(self, layer: Descriptor, word: str, done: int) -> None:
        """A :data:`pycore_images.content.Progress`. Raises what ``tell`` raises, where nobody waits any more."""
        with self._lock:
            self._layers[layer.digest] = (layer.size if word in ("done", "there") else done, layer.size)
            through, whole = (sum(column) for column in zip(*self._layers.values(), strict=True))
            words = f"fetching {through / 1e6:.0f} of {whole / 1e6:.0f} MB"
            if words == self._said:
                return
            self._said = words
        self._tell(words)
