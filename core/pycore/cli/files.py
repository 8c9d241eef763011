"""Verbs that take a file: check, plan, apply, down."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Generator

from pycore.cli.moments import seconds
from pycore.cli.parser import Verb
from pycore.cli.plans import STYLES, plan_json, plan_text, say_warnings, timings_text, unchanged_text
from pycore.cli.progress import progress_of
from pycore.cli.session import ENDING, Session
from pycore.cli.text import count
from pycore.convergence.applying import Cancel
from pycore.engine import Engine
from pycore.life.execute import Timing
from pycore.plan import Plan


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    verb("check", _check, "say every problem of a spec").add_argument("file")
    plan = verb("plan", _plan, "say what an apply would do, and why; change nothing")
    plan.add_argument("file")
    plan.add_argument("-v", "--verbose", action="store_true", help="every operation, in words")
    apply = verb("apply", _apply, "bring an app into the state that its spec describes")
    apply.add_argument("file")
    apply.add_argument("--time", action="store_true", help="say what each operation took")
    down = verb("down", _down, "stop and remove an app")
    down.add_argument("-t", "--time", metavar="SECONDS", type=seconds, help="how long ending may take")
    down.add_argument("app", metavar="FILE|APP")


def _check(session: Session, arguments: argparse.Namespace) -> int:
    app = session.engine.load(session.path(arguments.file), session.environment)
    names = list(app.containers)
    session.show({"app": app.name, "containers": names}, lambda: f"{app.name}: {count(names)}, no problems\n")
    return 0


def _plan(session: Session, arguments: argparse.Namespace) -> int:
    plan = session.engine.plan(session.engine.load(session.path(arguments.file), session.environment))
    session.lines(plan_json(plan), lambda: plan_text(plan, arguments.verbose), STYLES)
    say_warnings(session, plan)
    return 0


def _apply(session: Session, arguments: argparse.Namespace) -> int:
    app = session.engine.load(session.path(arguments.file), session.environment)
    timings: list[Timing] | None = [] if arguments.time else None

    plans: list[Plan] = []
    try:
        with progress_of(session) as progress, _giving_up(session) as cancel:
            plan = session.engine.apply(app, progress=progress, timings=timings, cancel=cancel, planned=plans.append)
    finally:
        for each in plans:
            say_warnings(session, each)
    shown = plan_json(plan)
    if timings is not None:
        shown["timings"] = [vars(timing) for timing in timings]
    session.show(shown, lambda: unchanged_text(plan) + ("" if timings is None else timings_text(timings)))
    return 0


@contextlib.contextmanager
def _giving_up(session: Session) -> Generator[Cancel | None, None, None]:
    """When the client hangs up or is interrupted, an apply that waits for something is given up, and taken back."""
    if session.connection is None:
        yield None
        return
    cancel = session.engine.cancel()

    def listen() -> None:
        for number in session.signals():
            if number in ENDING:
                break
        cancel.now()

    threading.Thread(target=listen, name="pycore-giving-up", daemon=True).start()
    yield cancel


def _down(session: Session, arguments: argparse.Namespace) -> int:
    word: str = arguments.app
    path = session.path(word)
    name = session.engine.load(path, session.environment).name if path.is_file() or "/" in word else word
    removed = session.engine.down(name, arguments.time)
    session.show({"app": name, "removed": removed}, lambda: "".join(f"{each} removed\n" for each in removed))
    return 0
