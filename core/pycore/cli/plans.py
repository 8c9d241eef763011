"""Plans and timings for people, and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from pycore.cli.session import Session
from pycore.cli.text import count
from pycore.life.execute import Timing
from pycore.ops import Operation, to_record
from pycore.plan import Action, Kind, Plan
from pycore.source.render import render


def plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "app": plan.app.name,
        "fetch": {name: operation_json(operation) for name, operation in plan.fetch.items()},
        "actions": [
            {
                "action": action.kind.value,
                "container": action.container,
                "reasons": [{"what": reason.what, "old": reason.old, "new": reason.new} for reason in action.reasons],
                "undo": [operation_json(operation) for operation in action.undo],
                "do": [operation_json(operation) for operation in action.do],
            }
            for action in plan.actions
        ],
        "unchanged": list(plan.unchanged),
        "warnings": [asdict(warning) for warning in plan.warnings],
    }


def say_warnings(session: Session, plan: Plan) -> None:
    """Say on standard error what may not be as somebody wants it; in JSON it is in the plan."""
    if plan.warnings and not session.json:
        worded = [replace(warning, message=f"warning: {warning.message}") for warning in plan.warnings]
        session.err(render(worded) + "\n")


def operation_json(operation: Operation) -> dict[str, Any]:
    words = {"phase": operation.step.phase.value, "step": operation.step.name.lower(), "words": operation.explain()}
    fields = {
        key: f"{len(getattr(operation, key))} bytes" if isinstance(value, dict) else value
        for key, value in to_record(operation).items()
    }
    return words | {"operation": fields}


def plan_text(plan: Plan, verbose: bool) -> str:
    lines = [f"+ {operation.explain()}" for operation in plan.fetch.values()]
    for action in plan.actions:
        lines.append(f"{_SIGNS[action.kind]} {action.kind.value} {action.container}")
        lines += [f"    because {reason.words()}" for reason in action.reasons]
        if verbose:
            lines += _operations_text(action)
    return "".join(f"{line}\n" for line in lines) + unchanged_text(plan)


_SIGNS = {
    Kind.CREATE: "+",
    Kind.START: "+",
    Kind.UPDATE: "~",
    Kind.RESTART: "~",
    Kind.RECREATE: "±",
    Kind.REMOVE: "-",
}

STYLES = {"+": "green", "~": "yellow", "±": "yellow", "-": "red"}
"""What a terminal shows the signs in."""


def _operations_text(action: Action) -> Iterator[str]:
    for operation in action.undo:
        yield f"    {operation.step.phase.value:8} - undo {operation.explain()}"
    for operation in action.do:
        yield f"    {operation.step.phase.value:8} + {operation.explain()}"


def unchanged_text(plan: Plan) -> str:
    if not plan.unchanged:
        return ""
    return f"{count(plan.unchanged)} unchanged\n" if plan.actions else "nothing to do\n"


def timings_text(timings: Sequence[Timing]) -> str:
    return "".join(f"{each.seconds * 1000:9.3f} ms  {each.container}  {each.step:12} {each.what}\n" for each in timings)
