"""Verbs about the host: what is installed, what is missing, the supervisor itself."""

from __future__ import annotations

import argparse
import json

from pycore import doctor
from pycore.cli.parser import Verb
from pycore.cli.screen import Cell, Column
from pycore.cli.session import Session
from pycore.engine import Engine

_PLUGINS = (Column("PLUGIN"), Column("WHAT", shrinks=True), Column("DISTRIBUTION"))


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them."""
    verb("plugins", _plugins, "list the installed plugins")
    verb("schema", _schema, "print the JSON Schema of app.toml, for editors")
    look = verb("doctor", _doctor, "say what this host lacks and what is not as the records say, and what mends it")
    look.add_argument("--repair", action="store_true", help="mend what is not as the records say")
    verb("supervise", _supervise, "look after containers in the foreground, for systemd")


def _plugins(session: Session, arguments: argparse.Namespace) -> int:
    plugins = session.engine.plugins
    rows = plugins.listing()

    shown = [[Cell(row["plugin"], "bold"), Cell(row["what"]), Cell(row["distribution"], "dim")] for row in rows]
    for name, why in sorted(plugins.broken.items()):
        shown.append([Cell(name, "red"), Cell(f"cannot be loaded: {why}", "red"), Cell("")])
    session.table({"plugins": rows, "broken": plugins.broken}, _PLUGINS, lambda: shown)
    return 0


def _schema(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.source.schema import json_schema

    session.out(json.dumps(json_schema(session.engine.plugins), indent=2) + "\n")
    return 0


def _doctor(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.repair:
        return _repair(session)
    needs = [
        {"plugin": plugin, "what": need.what, "met": need.met, "why": need.why, "mend": need.mend}
        for plugin, found in session.engine.plugins.requirements(session.engine.kernel).items()
        for need in found
    ]
    lacking = sum(not row["met"] for row in needs)
    findings = doctor.amiss(session.engine)

    def text() -> str:
        lines: list[str] = []
        for row in needs:
            lines.append(f"{'ok     ' if row['met'] else 'MISSING'} {row['what']} ({row['plugin']})")
            if not row["met"]:
                lines += [f"        {row[key]}" for key in ("why", "mend") if row[key]]
        for finding in findings:
            lines.append(f"{finding.kind.upper():<9} {finding.what}")
            lines += [f"        {finding.mend}"] if finding.mend else []
        lines.append(f"{lacking} missing" if lacking else "nothing is missing")
        if findings:
            lines.append(f"{len(findings)} not as the records say: pycore doctor --repair")
        return "".join(f"{line}\n" for line in lines)

    session.show({"requirements": needs, "findings": [_finding(each) for each in findings]}, text)
    return 1 if lacking or findings else 0


def _repair(session: Session) -> int:
    """Mend what can be mended, and say what was done and what could not be."""
    done = doctor.repair(session.engine)
    failed = sum(bool(each.failure) for each in done)

    def text() -> str:
        lines: list[str] = []
        for each in done:
            lines.append(f"{'FAILED ' if each.failure else 'mended '} {each.finding.what}")
            lines += [f"        {each.failure}"] if each.failure else []
        lines.append(f"{failed} could not be mended" if failed else f"{len(done)} mended" if done else "all is well")
        return "".join(f"{line}\n" for line in lines)

    rows = [_finding(each.finding) | {"mended": not each.failure, "failure": each.failure} for each in done]
    session.show({"findings": rows}, text)
    return 1 if failed else 0


def _finding(finding: doctor.Finding) -> dict[str, object]:
    return {"kind": finding.kind, "what": finding.what, "mend": finding.mend, "repairable": finding.repair is not None}


def _supervise(session: Session, arguments: argparse.Namespace) -> int:
    from pycore.resident.supervisor import supervise

    supervise(session.engine.run_dir, session.engine.data_dir)
    return 0
