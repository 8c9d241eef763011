"""A client's own streams, as long as the client is there: nothing here waits for one that has gone."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Generator
from typing import IO, Protocol

from pycore.cli.session import Interrupted
from pycore.launch.archive import watched

_CHUNK = 1 << 16


class Client(Protocol):
    """Whoever waits for what is done: a session, or what listens to one in its place."""

    def hangups(self) -> tuple[int, ...]:
        """Descriptors that can be read when there may be news of it."""
        ...

    def gone(self) -> bool:
        """Whether nobody waits any more."""
        ...


def reading(client: Client, fd: int) -> IO[bytes]:
    """A stream that comes from a descriptor of the client's; it raises Interrupted when the client is gone."""
    return watched(fd, lambda each: wait(client, each))


@contextlib.contextmanager
def writing(client: Client, fd: int) -> Generator[int, None, None]:
    """A descriptor to write to, whose other end a thread of ours hands on to the client's.

    A writer that fills it while nobody reads gets EPIPE when the client is gone. What went wrong is raised at the end.
    """
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    failures: list[BaseException] = []

    def hand_on() -> None:
        try:
            _hand_on(client, theirs, fd)
        except BaseException as error:
            failures.append(error)
        finally:
            os.close(theirs)

    thread = threading.Thread(target=hand_on, name="pycore-hand-on", daemon=True)
    thread.start()
    try:
        yield ours
    except BrokenPipeError:
        pass  # the other end says why
    finally:
        os.close(ours)
        thread.join()
    if failures:
        raise failures[0]


def _hand_on(client: Client, source: int, target: int) -> None:
    """Never more at once than a pipe takes that says it can be written to (pipe(7))."""
    while data := os.read(source, _CHUNK):
        while data:
            wait(client, target, select.POLLOUT)
            data = data[os.write(target, data[: select.PIPE_BUF]) :]


def wait(client: Client, fd: int, event: int = select.POLLIN) -> None:
    """Until something can be read, or written; files on a disk always can. Raises Interrupted when nobody waits."""
    waiting = select.poll()
    waiting.register(fd, event)
    for each in client.hangups():
        waiting.register(each, select.POLLIN)
    while True:
        ready = {each for each, _ in waiting.poll()}
        if ready - {fd} and client.gone():
            raise Interrupted
        if fd in ready:
            return
