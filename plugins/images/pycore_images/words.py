"""How far a fetch is, in words for one line; and its end, where nobody waits for it any more."""

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
        self._gone: BaseException | None = None
        self.cancel = threading.Event()
        """Set when nobody waits any more: what was raised then is raised again by :meth:`close`."""

    def progress(self, layer: Descriptor, word: str, done: int) -> None:
        """A :data:`pycore_images.content.Progress`."""
        with self._lock:
            self._layers[layer.digest] = (layer.size if word in ("done", "there") else done, layer.size)
            through, whole = (sum(column) for column in zip(*self._layers.values(), strict=True))
            words = f"fetching {through / 1e6:.0f} of {whole / 1e6:.0f} MB"
            if words == self._said or self._gone:
                return
            self._said = words
            try:
                self._tell(words)
            except BaseException as error:  # whatever it is: who waits is to get it, not the thread of a layer
                self._gone = error
                self.cancel.set()

    def close(self) -> None:
        """Raises what told that nobody waits any more."""
        if self._gone:
            raise self._gone
