"""Bytes from one thread to another, a few pieces at a time."""

from __future__ import annotations

import threading
from collections import deque


class Broken(Exception):
    """The other end has given up; why, it knows itself."""


class Pipe:
    """One thread puts pieces in, one reads them; neither gets far ahead of the other."""

    def __init__(self, most: int = 4) -> None:
        """``most`` pieces wait at most."""
        self._most = most
        self._pieces: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = self._broken = False

    def put(self, piece: bytes) -> None:
        """One that is not empty, as soon as there is room. Raises Broken."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or len(self._pieces) < self._most)
            if self._broken:
                raise Broken
            self._pieces.append(piece)
            self._changed.notify()

    def end(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def give_up(self) -> None:
        """Neither end goes on: what waits, or comes to wait, gets Broken."""
        with self._changed:
            self._broken = True
            self._pieces.clear()
            self._changed.notify_all()

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end. Raises Broken."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or self._ended or self._pieces)
            if self._broken:
                raise Broken
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                return piece[:size]
            self._changed.notify()
            return piece
