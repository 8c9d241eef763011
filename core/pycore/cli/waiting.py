"""Waiting for a container's end on behalf of a client, whose signals are passed on meanwhile."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable

from pycore.cli.session import Interrupted, Session
from pycore.engine import Engine
from pycore.errors import NotFound, PycoreError
from pycore.life.live import exit_code
from pycore.records.events import EventQuery

OF_TERMINAL = (signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
"""Signals that are about the client's own terminal."""


def wait_attached(session: Session, identity: str) -> int:
    """Wait for the end of a container and pass the client's signals on; its exit status, 1 where nobody knows."""
    passing = threading.Thread(target=pass_signals, args=(session, identity), daemon=True)
    passing.start()
    status = wait_for(session.engine, identity, lambda: not passing.is_alive())
    return 1 if status is None else status


def wait_for(engine: Engine, identity: str, given_up: Callable[[], bool]) -> int | None:
    """A container's exit status once it has ended, or when it did, should it be removed by now.

    Raises Interrupted when nobody waits for it any longer.
    """
    while True:
        try:
            return engine.wait(identity, 1.0)
        except TimeoutError:
            if given_up():
                raise Interrupted from None
        except NotFound:
            query = EventQuery(filters={"id": [identity], "what": ["die"]})
            ends = [event.get("exit_status") for event in engine.events(query)]
            if not ends:
                raise
            return exit_code(ends[-1])


def pass_signals(session: Session, identity: str) -> None:
    """Pass the client's signals on. The third request to end is an order: PID 1 ignores what it does not handle."""
    requests = 0
    for number in session.signals():
        if number in OF_TERMINAL:
            continue
        requests += number in (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(PycoreError):  # it has ended: so will we
            session.engine.kill(identity, signal.SIGKILL if requests >= 3 else number)
