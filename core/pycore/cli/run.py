"""The verbs run and create: one container, with Docker's habits. And resume, when a supervisor has ended meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import threading
from collections.abc import Callable

from pycore import runflags
from pycore.cli.parser import Verb
from pycore.cli.session import Interrupted, Session
from pycore.engine import Engine
from pycore.errors import NotFound, PycoreError
from pycore.events import EventQuery
from pycore.launch.launcher import Stdio
from pycore.live import Live, exit_code
from pycore.spec import App, Process


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    run = verb("run", _run, "run one container, with Docker's habits")
    run.add_argument("-d", "--detach", action="store_true", help="run in the background, print the name")
    create = verb("create", _create, "make one container as run does, and hold it until it is started")
    for each in (run, create):
        runflags.add_arguments(each, engine.plugins)
    verb("resume", _resume, "").add_argument("id")


def _spec(session: Session, arguments: argparse.Namespace) -> App | None:
    """The app that the flags describe; None where it was only to be printed."""
    text = runflags.spec(arguments, session.engine.plugins, session.environment)
    if arguments.print_toml:
        session.write(1, text.encode("utf-8", "surrogateescape"))
        return None
    return session.engine.load_text(text, file="the spec of this run", directory=session.directory, environment={})


def _run(session: Session, arguments: argparse.Namespace) -> int:
    app = _spec(session, arguments)
    if app is None:
        return 0
    if not arguments.detach:
        return _run_attached(session, app, arguments)
    return _say(session, session.engine.run(app, auto_remove=arguments.rm))


def _create(session: Session, arguments: argparse.Namespace) -> int:
    app = _spec(session, arguments)
    return 0 if app is None else _say(session, session.engine.run(app, auto_remove=arguments.rm, hold=True))


def _say(session: Session, live: Live) -> int:
    record = live.record
    session.show({"container": record.full_name, "id": record.id}, lambda: f"{record.full_name}\n")
    return 0


def _run_attached(session: Session, app: App, arguments: argparse.Namespace) -> int:
    """The program gets the client's own descriptors; its exit status becomes ours; signals are passed on."""
    interactive = next(iter(app.containers.values()))[Process].stdin_open
    stdin = session.stdio[0] if interactive else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        live = session.engine.run(app, stdio=Stdio(stdin, session.stdio[1], session.stdio[2]), auto_remove=arguments.rm)
    finally:
        if not interactive:
            os.close(stdin)
    session.resume(["resume", live.record.id])
    threading.Thread(target=pass_signals, args=(session, live.record.id), daemon=True).start()
    status = live.wait()
    return 1 if status is None else status


def _resume(session: Session, arguments: argparse.Namespace) -> int:
    """Go on waiting for a container, for a client whose supervisor has ended."""
    session.resume(["resume", arguments.id])
    return wait_attached(session, arguments.id)


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
        requests += number in (signal.SIGINT, signal.SIGTERM)
        with contextlib.suppress(PycoreError):  # it has ended: so will we
            session.engine.kill(identity, signal.SIGKILL if requests >= 3 else number)
