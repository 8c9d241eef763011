"""Verbs about the host: what is installed, what is missing, the supervisor itself."""

from __future__ import annotations

import argparse
import json

from pycore.cli.parser import Verb
from pycore.cli.session import Session
from pycore.engine import Engine


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    verb("plugins", _plugins, "list the installed plugins")
    verb("schema", _schema, "print the JSON Schema of app.toml, for editors")
    verb("doctor", _doctor, "say what this host lacks, and what mends it")
    verb("supervise", _supervise, "look after containers in the foreground, for systemd")


def _plugins(session: Session, arguments: argparse.Namespace) -> int:
    plugins = session.engine.plugins
    rows = plugins.listing()

    def text() -> str:
        lines = [f"{row['plugin']:24} {row['what']:28} {row['distribution']}" for row in rows]
        lines += [f"{name:24} cannot be loaded: {why}" for name, why in sorted(plugins.broken.items())]
        return "".join(f"{line.rstrip()}\n" for line in lines)

    session.show({"plugins": rows, "broken": plugins.broken}, text)
    return 0


def _schema(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.schema import json_schema

    session.out(json.dumps(json_schema(session.engine.plugins), indent=2) + "\n")
    return 0


def _doctor(session: Session, arguments: argparse.Namespace) -> int:
    found = session.engine.plugins.requirements(session.engine.kernel)
    rows = [
        {"plugin": plugin, "what": need.what, "met": need.met, "why": need.why, "mend": need.mend}
        for plugin, needs in found.items()
        for need in needs
    ]
    missing = [row for row in rows if not row["met"]]

    def text() -> str:
        lines: list[str] = []
        for row in rows:
            lines.append(f"{'ok     ' if row['met'] else 'MISSING'} {row['what']} ({row['plugin']})")
            if not row["met"]:
                lines += [f"        {row[key]}" for key in ("why", "mend") if row[key]]
        lines.append(f"{len(missing)} missing" if missing else "nothing is missing")
        return "".join(f"{line}\n" for line in lines)

    session.show(rows, text)
    return 1 if missing else 0


def _supervise(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.supervisor import supervise

    supervise(session.engine.run_dir, session.engine.data_dir)
    return 0
