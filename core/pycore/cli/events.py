"""The verb events: what happens to containers, as it happens."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from pycore.cli.moments import moment
from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.errors import UsageError
from pycore.records.events import Event, EventQuery

_HEAD = ("time", "what", "app", "container", "id")


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    events = verb("events", _events, "print what happens to containers, as it happens")
    events.add_argument(
        "--since", metavar="MOMENT", help="first what has happened since: a date, or 10m for so long ago"
    )
    events.add_argument("--until", metavar="MOMENT", help="end there; without it, go on until interrupted")
    events.add_argument(
        "--filter", metavar="KEY=VALUE", action="append", default=[],
        help="only events with that value; the same key again is another value that will do",
    )  # fmt: skip


def _events(session: Session, arguments: argparse.Namespace) -> int:
    until = None if arguments.until is None else moment(arguments.until)
    since = None if arguments.since is None else moment(arguments.since)
    if since is None and until is not None:
        since = 0.0
    _go_on(session, arguments, time.time() if since is None else since)
    for event in session.engine.events(EventQuery(since, until, _filters(arguments.filter)), session.gone):
        if session.json:
            session.print_json(event, indent=None)
        else:
            session.out(_words(event) + "\n")
        _go_on(session, arguments, event["time"] + 1e-6)
    return 0


def _go_on(session: Session, arguments: argparse.Namespace, since: float) -> None:
    """Should the supervisor end, the client goes on with what happened since."""
    words = ["events", "--since", f"{since:.6f}", *(["--json"] if session.json else [])]
    words += [word for each in arguments.filter for word in ("--filter", each)]
    session.resume(words if arguments.until is None else [*words, "--until", f"{moment(arguments.until):.6f}"])


def _filters(words: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"--filter {word}: must be KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found


def _words(event: Event) -> str:
    """One line: when, to what, what, and the details as ``key=value``."""
    when = datetime.fromtimestamp(event["time"], UTC).isoformat(timespec="milliseconds")
    about = f"{event['app']}/{event['container']}" if "container" in event else event.get("app", "-")
    details = (f"{key}={_value(value)}" for key, value in event.items() if key not in _HEAD)
    return " ".join((when.replace("+00:00", "Z"), event["what"], about, *details)).replace("\n", "\\n")


def _value(value: object) -> str:
    plain = isinstance(value, str) and value and all(char.isalnum() or char in "-_./:" for char in value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)
