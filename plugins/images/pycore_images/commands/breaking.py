"""A verb that takes long: broken off by whoever gave the command, gone on with where the supervisor ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Sequence

from pycore.cli.session import ENDING, Interrupted, Session
from pycore.errors import PycoreError


@contextlib.contextmanager
def breakable(session: Session, words: Sequence[str] = ()) -> Generator[threading.Event, None, None]:
    """An event that is set when the client hangs up or is interrupted; what fails then, has been broken off.

    With ``words`` the client goes on in the next supervisor, should this one end meanwhile. Raises Interrupted.
    """
    cancel = threading.Event()
    if session.connection is not None:
        threading.Thread(target=_listen, args=(session, cancel), name="pycore-breaking", daemon=True).start()
    if words:
        session.resume([*words, *(["--json"] if session.json else [])])
    try:
        yield cancel
    except PycoreError as error:
        if cancel.is_set():
            raise Interrupted from error
        raise
    except KeyboardInterrupt:
        cancel.set()
        raise


def _listen(session: Session, cancel: threading.Event) -> None:
    for number in session.signals():
        if number in ENDING:
            break
    cancel.set()
