"""A shortened filter has the same answer to every call, and is shorter."""

from __future__ import annotations

import struct
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore_isolation import compile as compiler
from pycore_isolation.compile import compile_filter
from pycore_isolation.profile import NAMESPACE_FLAGS, RULES
from pycore_isolation.shorten import shorten

from .bpf import AARCH64, ALLOW, ERRNO, I386, X86_64, run

LOAD, AND, JUMP, EQUAL, GREATER, AT_LEAST, ANY_BIT, GIVE = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
NUMBER, ARGUMENT = 0, 16

CALLS = (*range(600), 0x3FFFFFFF, 0x40000000, 0x40000001, 0x7FFFFFFF, -(1 << 31), -2, -1)
ARGUMENTS = (0, 1, 8, 38, 0x20008, (1 << 32) | 1, *NAMESPACE_FLAGS[::3])


@pytest.mark.needs("libseccomp")
@pytest.mark.parametrize("granted", [(), ("SYS_ADMIN",)])
def test_the_profile_means_the_same(granted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    short = compile_filter(RULES, frozenset(granted))
    monkeypatch.setattr(compiler, "shorten", bytes)
    long = compile_filter(RULES, frozenset(granted))
    assert len(short) < len(long) * 2 / 3
    for arch, call, argument in product((X86_64, I386, AARCH64), CALLS, ARGUMENTS):
        assert run(short, arch, call, (argument,)) == run(long, arch, call, (argument,)), (arch, call, argument)


def program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("HBBI", *each) for each in instructions)


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60), max_size=10))
def test_any_list_of_calls_means_the_same(allowed: set[int], by_argument: set[int]) -> None:
    long = [(LOAD, 0, 0, NUMBER)]
    for number in sorted(allowed):
        long += [(EQUAL, 0, 1, number), (GIVE, 0, 0, ALLOW)]
    for number in sorted(by_argument):
        long += [(EQUAL, 0, 4, number), (LOAD, 0, 0, ARGUMENT), (AND, 0, 0, 3), (EQUAL, 0, 1, 2), (GIVE, 0, 0, ALLOW)]
        long += [(LOAD, 0, 0, NUMBER)]
    long += [(GIVE, 0, 0, ERRNO)]
    short = shorten(program(*long))
    assert len(short) <= len(program(*long))
    for call, argument in product((*range(62), -1), (2, 3)):
        assert run(short, X86_64, call, (argument,)) == run(program(*long), X86_64, call, (argument,))


@pytest.mark.parametrize("strange", [(AND, 0, 0, 0xFF), (ANY_BIT, 0, 0, 1), (0x04, 0, 0, 1), (0x16, 0, 0, 0)])
def test_what_is_not_known_is_left_alone(strange: tuple[int, int, int, int]) -> None:
    long = program((LOAD, 0, 0, NUMBER), strange, *[(EQUAL, 0, 0, 7)] * 20, (GIVE, 0, 0, ALLOW))
    assert shorten(long) == long
