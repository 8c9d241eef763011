"""Operations as values: the journal gives back what went in."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from pycore.ops import Operation, from_record, to_record
from pycore.steps import Phase, Step


@dataclass(frozen=True)
class Everything(Operation):
    step = Step.MOUNT
    text: str
    number: int
    blob: bytes
    nothing: None
    nested: tuple[tuple[str, ...], ...]
    switch: bool = True


def test_a_journal_gives_back_an_equal_operation() -> None:
    operation = Everything("a,b:c\n", -3, b"\0\xff", None, (("a", "b"), ()))
    assert from_record(json.loads(json.dumps(to_record(operation)))) == operation


@pytest.mark.parametrize("name", ["pycore.ops:Context", "pycore.ops:to_record", "pycore.ops:nothing"])
def test_a_journal_names_nothing_but_operations(name: str) -> None:
    with pytest.raises(AttributeError):
        from_record({"op": name})


def test_steps_are_in_the_order_of_their_phases() -> None:
    phases = [step.phase for step in sorted(Step, key=lambda step: step.order)]
    assert phases == sorted(phases, key=list(Phase).index)
    assert [step.order for step in Step] == list(range(len(Step)))
