"""A verb that takes long: broken off by whoever gave the command, gone on with where the supervisor ends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Sequence

from pycore.cli.session import ENDING, Interrupted, Session
from pycore.cli.streams import wait
from pycore.errors import PycoreError


class Break(threading.Event):
    """Set when the client hangs up or is interrupted; a :class:`pycore.cli.streams.Client`."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._ends: list[Callable[[], None]] = []

    def set(self) -> None:
        super().set()
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)
            for end in self._ends:
                end()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], None]) -> Generator[None, None, None]:
        """For as long as this lasts, ``end`` is called when this is set: it ends what cannot look at this."""
        with self._lock:
            self._ends.append(end)
        if self.is_set():
            end()
        try:
            yield
        finally:
            with self._lock:
                self._ends.remove(end)

    def hangups(self) -> tuple[int, ...]:
        """What can be read when this is set."""
        return (self._bell,)

    def gone(self) -> bool:
        """Whether it is."""
        return self.is_set()

    def wait_for(self, fd: int) -> None:
        """Return when a descriptor can be read. Raises Interrupted as soon as this is set."""
        wait(self, fd)

    def close(self) -> None:
        """Ring no more."""
        with self._lock:
            os.close(self._bell)
            self._bell = -1


@contextlib.contextmanager
def breakable(session: Session, words: Sequence[str] = ()) -> Generator[Break, None, None]:
    """For as long as this lasts, it can be broken off; what fails then, has been. Raises Interrupted.

    With ``words`` the client goes on in the next supervisor, should this one end meanwhile.
    """
    broken = Break()
    if session.connection is not None:
        threading.Thread(target=_listen, args=(session, broken), name="pycore-breaking", daemon=True).start()
    if words:
        session.resume([*words, *(["--json"] if session.json else [])])
    try:
        yield broken
    except (PycoreError, OSError) as error:
        if broken.is_set():
            raise Interrupted from error
        raise
    except KeyboardInterrupt:
        broken.set()
        raise
    finally:
        broken.close()


def _listen(session: Session, broken: Break) -> None:
    for number in session.signals():
        if number in ENDING:
            break
    broken.set()
