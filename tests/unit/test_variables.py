"""Interpolation by Compose's rules."""

from __future__ import annotations

import pytest
from pycore.source.variables import VariableError, interpolate

ENVIRONMENT = {"A": "a", "EMPTY": "", "MONEY": "$A ${A}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${A}${A}", "aa"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$$${A}", "$a"),
        ("$A $ $( $1", "$A $ $( $1"),
        ("${MONEY}", "$A ${A}"),
        ("${EMPTY}|${EMPTY-x}|${EMPTY:-x}", "||x"),
        ("${NONE-}|${NONE-x}|${NONE:-x y: z}", "|x|x y: z"),
        ("${A+x}|${A:+x}|${EMPTY+x}|${EMPTY:+x}|${NONE+x}|${NONE:+x}", "x|x|x|||"),
        ("${A?no}|${EMPTY?no}|${A:?no}", "a||a"),
    ],
)
def test_what_comes_out(text: str, expected: str) -> None:
    assert interpolate(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("text", "message", "reference"),
    [
        ("a ${NONE} b", "variable NONE is not set", "${NONE"),
        ("${NONE?tell me}", "variable NONE is not set: tell me", "${NONE"),
        ("${EMPTY:?}", "variable EMPTY is not set", "${EMPTY"),
        ("${}", "${ does not begin a variable here", "${"),
        ("${A", "${ does not begin a variable here", "${"),
        ("${A!x}", "${ does not begin a variable here", "${"),
        ("${NONE:-${A}}", "${ does not begin a variable here", "${"),
        ("${9}", "${ does not begin a variable here", "${"),
    ],
)
def test_what_is_refused(text: str, message: str, reference: str) -> None:
    with pytest.raises(VariableError) as caught:
        interpolate(text, ENVIRONMENT)
    assert (str(caught.value), caught.value.reference) == (message, reference)
