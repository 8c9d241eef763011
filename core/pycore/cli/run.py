"""The verbs run and create: one container, with Docker's habits. And resume, when a supervisor has ended meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
from dataclasses import replace
from functools import partial

from pycore.cli import attach, progress
from pycore.cli.parser import Verb
from pycore.cli.plans import say_warnings
from pycore.cli.session import Interrupted, Session
from pycore.cli.waiting import pass_signals, wait_attached
from pycore.engine import Engine
from pycore.launch.launcher import Stdio
from pycore.life.attachment import Attachment
from pycore.life.live import Live
from pycore.records.state import ContainerRecord
from pycore.source import runflags
from pycore.spec import App, Process
from pycore.streams.terminal import window_size

_FILE = "the spec of this run"


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    run = verb("run", _run, "run one container, with Docker's habits")
    run.add_argument("-d", "--detach", action="store_true", help="run in the background, print the name")
    attach.add_arguments(run)
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
    app = session.engine.load_text(text, file=_FILE, directory=session.directory, environment={})
    return replace(app, environment=session.environment)  # for credentials; the flags have no variables in them


def _run(session: Session, arguments: argparse.Namespace) -> int:
    app = _spec(session, arguments)
    if app is None:
        return 0
    _fetch(session, app)
    warn = partial(say_warnings, session)
    if arguments.detach:
        window = window_size(session.stdio[1])
        return _say(session, session.engine.run(app, auto_remove=arguments.rm, window=window, planned=warn))
    process = next(iter(app.containers.values()))[Process]
    return (_run_in_terminal if process.tty else _run_attached)(session, app, arguments, process.stdin_open)


def _create(session: Session, arguments: argparse.Namespace) -> int:
    app = _spec(session, arguments)
    if app is None:
        return 0
    _fetch(session, app)
    warn = partial(say_warnings, session)
    return _say(session, session.engine.run(app, auto_remove=arguments.rm, hold=True, planned=warn))


def _fetch(session: Session, app: App) -> None:
    """Have the image here first, which a terminal is told of; what is piped is the program's own output alone."""

    def check() -> None:
        if session.gone():
            raise Interrupted

    with progress.Live(session) if session.terminal and not session.json else progress.Nothing(session) as told:
        session.engine.fetch(app, told, check)


def _say(session: Session, live: Live) -> int:
    record = live.record
    session.show({"container": record.full_name, "id": record.id}, lambda: f"{record.full_name}\n")
    return 0


def _run_in_terminal(session: Session, app: App, arguments: argparse.Namespace, interactive: bool) -> int:
    """The program has a terminal of its own, which the client shares; what comes out of it is logged as well."""
    if interactive:
        attach.require_terminal(session)
    with contextlib.ExitStack() as stack:
        attachments: list[Attachment] = []

        def prepared(record: ContainerRecord) -> None:
            attachments.append(stack.enter_context(contextlib.closing(session.engine.attachment(record))))

        window = window_size(session.stdio[1])
        live = session.engine.run(
            app, auto_remove=arguments.rm, window=window, prepared=prepared, planned=partial(say_warnings, session)
        )
        attachments[0].connect(live, interactive)
        return attach.follow(session, arguments, live.record, attachments[0])


def _run_attached(session: Session, app: App, arguments: argparse.Namespace, interactive: bool) -> int:
    """The program gets the client's own descriptors; its exit status becomes ours; signals are passed on."""
    stdin = session.stdio[0] if interactive else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    stdio = Stdio(stdin, session.stdio[1], session.stdio[2])
    try:
        live = session.engine.run(app, stdio=stdio, auto_remove=arguments.rm, planned=partial(say_warnings, session))
    finally:
        if not interactive:
            os.close(stdin)
    session.resume(["resume", live.record.id])
    if arguments.sig_proxy:
        threading.Thread(target=pass_signals, args=(session, live.record.id), daemon=True).start()
    status = live.wait()
    return 1 if status is None else status


def _resume(session: Session, arguments: argparse.Namespace) -> int:
    """Go on waiting for a container, for a client whose supervisor has ended."""
    session.resume(["resume", arguments.id])
    return wait_attached(session, arguments.id)
