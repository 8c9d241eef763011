"""The verb logs: what containers have written."""

from __future__ import annotations

import argparse
import json

from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.logs import STDERR


def verbs(verb: Verb, engine: Engine) -> None:
    """Add it."""
    logs = verb("logs", _logs, "print what a container has written")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    logs.add_argument("container", metavar="CONTAINER")


def _logs(session: Session, arguments: argparse.Namespace) -> int:
    record = session.engine.find(arguments.container)
    if not record.log:
        session.err(f"pycore: no log is kept of {record.full_name}: its output went to the terminal that ran it\n")
    for chunk in session.engine.logs(record.full_name, follow=arguments.follow, until=session.gone):
        if session.json:
            stream = "stderr" if chunk.stream == STDERR else "stdout"
            text = chunk.data.decode("utf-8", "replace")
            session.out(json.dumps({"time": chunk.time, "stream": stream, "text": text}) + "\n")
        else:
            session.write(2 if chunk.stream == STDERR else 1, chunk.data)
    return 0
