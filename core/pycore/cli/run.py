"""The verb run: one container, with Docker's habits."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from typing import Any

from pycore import runflags
from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore.launch.launcher import Stdio
from pycore.spec import Process


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    runflags.add_arguments(verb("run", _run, "run one container, with Docker's habits"), engine.plugins)


def _run(session: Session, arguments: argparse.Namespace) -> int:
    text = runflags.spec(arguments, session.engine.plugins, session.environment)
    if arguments.print_toml:
        session.out(text)
        return 0
    app = session.engine.load_text(text, file="the spec of this run", directory=session.directory, environment={})
    if arguments.detach:
        record = session.engine.run(app, auto_remove=arguments.rm).record
        session.show({"container": record.full_name, "id": record.id}, lambda: f"{record.full_name}\n")
        return 0
    return _run_attached(session, app, arguments)


def _run_attached(session: Session, app: Any, arguments: argparse.Namespace) -> int:
    """The program gets the client's own descriptors; its exit status becomes ours; signals are passed on."""
    interactive = next(iter(app.containers.values()))[Process].stdin_open
    stdin = session.stdio[0] if interactive else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        live = session.engine.run(app, stdio=Stdio(stdin, session.stdio[1], session.stdio[2]), auto_remove=arguments.rm)
    finally:
        if not interactive:
            os.close(stdin)
    threading.Thread(target=pass_signals, args=(session, live.record.id), daemon=True).start()
    status = live.wait()
    return 1 if status is None else status


def pass_signals(session: Session, identity: str) -> None:
    """Pass the client's signals on. The third request to end is an order: PID 1 ignores what it does not handle."""
    requests = 0
    for number in session.signals():
        requests += number in (signal.SIGINT, signal.SIGTERM)
        try:
            session.engine.kill(identity, signal.SIGKILL if requests >= 3 else number)
        except PycoreError:
            return
