"""A shorter system-call filter that says the same.

libseccomp compares a call's number with one after another, if in a tree; but numbers that lie side by side mostly have
the same answer. A tree of ranges has a quarter of the instructions. The kernel translates the program anew for each
process that loads it (bpf_prepare_filter() in net/core/filter.c), which is the greatest part of what loading costs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_LOAD, _AND, _JUMP, _EQUAL, _GREATER, _AT_LEAST, _ANY_BIT, _GIVE = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
"""The instructions that libseccomp writes (linux/bpf_common.h)."""
_NUMBER, _ARCH = 0, 4
"""Where they stand in struct seccomp_data."""
_BEYOND = 1 << 32
_FARTHEST = 255
"""Instructions that a comparison can jump over."""


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    true: int
    false: int
    k: int


class Look(NamedTuple):
    """What a program does with a call whose architecture and number are known: look at an argument, and decide."""

    load: tuple[Instruction, ...]
    """Loads it, or parts of it; nothing where it is loaded already."""
    code: int
    k: int
    true: Answer
    false: Answer


Answer = int | Look
"""What becomes of a call: an action, or a look further."""


class _Strange(Exception):
    """The program does something that we do not know, or not with a number: it is left as it is."""


def shorten(program: bytes) -> bytes:
    """A program, as an array of struct sock_filter, that has the same answer to every call."""
    old = [Instruction(*fields) for fields in struct.iter_unpack("HBBI", program)]
    try:
        new = _Writer(old).write()
    except _Strange:
        return program
    return b"".join(struct.pack("HBBI", *each) for each in new) if len(new) < len(old) else program


class _Writer:
    def __init__(self, old: Sequence[Instruction]) -> None:
        self._old = old
        bounds = {0, *(each.k + more for each in old for more in (0, 1) if _compares(each))}
        self._bounds = sorted(bound for bound in bounds if bound < _BEYOND)
        """Nothing changes between two of these: the program compares with none of the numbers there."""
        self._new: list[Instruction] = []

    def write(self) -> list[Instruction]:
        self._new = [Instruction(_LOAD, 0, 0, _ARCH)]
        for arch in self._architectures():
            self._only_for(arch, self._ranges(arch))
        self._tree(self._ranges(next(number for number in range(_BEYOND) if number not in self._bounds)))
        return self._new

    def _architectures(self) -> Iterable[int]:
        """Those that the program tells from others."""
        loaded, found = -1, list[int]()
        for each in self._old:
            if each.code == _LOAD:
                loaded = each.k
            elif _compares(each) and loaded == _ARCH and each.k not in found:
                found.append(each.k)
        return found

    def _only_for(self, arch: int, ranges: Sequence[tuple[int, Answer]]) -> None:
        self._new.append(Instruction(_EQUAL, 1, 0, arch))
        over = len(self._new)
        self._new.append(Instruction(_JUMP, 0, 0, 0))
        self._tree(ranges)
        self._new[over] = Instruction(_JUMP, 0, 0, len(self._new) - over - 1)

    # -- what the old program says ----------------------------------------------------------------------

    def _ranges(self, arch: int) -> list[tuple[int, Answer]]:
        """(first number, answer) of all numbers of an architecture."""
        ranges: list[tuple[int, Answer]] = []
        for bound in self._bounds:
            answer = self._ask({_ARCH: arch, _NUMBER: bound})
            if not ranges or ranges[-1][1] != answer:
                ranges.append((bound, answer))
        return ranges

    def _ask(self, known: Mapping[int, int], at: int = 0) -> Answer:
        """What it says from an instruction on, where what is loaded there is nothing known."""
        loaded: int | None = None
        load: tuple[Instruction, ...] = ()
        while True:
            instruction = self._old[at]
            code, true, false, k = instruction
            at += 1
            if code == _GIVE:
                return k
            if code == _JUMP:
                at += k
            elif code == _LOAD and k in known:
                loaded = k
            elif code == _LOAD:
                loaded, load = None, (instruction,)
            elif loaded is not None:
                at += true if _holds(instruction, loaded, known[loaded]) else false
            elif code == _AND:
                load = (*load, instruction)
            elif not _compares(instruction):
                raise _Strange
            else:
                either = self._ask(known, at + true), self._ask(known, at + false)
                return either[0] if either[0] == either[1] else Look(load, code, k, *either)

    # -- the new one ------------------------------------------------------------------------------------

    def _tree(self, ranges: Sequence[tuple[int, Answer]]) -> None:
        if len(ranges) > 1:
            self._new.append(Instruction(_LOAD, 0, 0, _NUMBER))
        self._branch(ranges)

    def _branch(self, ranges: Sequence[tuple[int, Answer]]) -> None:
        if len(ranges) == 1:
            self._say(ranges[0][1])
            return
        middle = len(ranges) // 2
        at = len(self._new)
        self._new.append(Instruction(_AT_LEAST, 0, 0, ranges[middle][0]))
        self._branch(ranges[:middle])
        length = len(self._new) - at - 1
        if length <= _FARTHEST:
            self._new[at] = self._new[at]._replace(true=length)
        else:
            self._new[at] = self._new[at]._replace(false=1)
            self._new.insert(at + 1, Instruction(_JUMP, 0, 0, length))
        self._branch(ranges[middle:])

    def _say(self, answer: Answer) -> None:
        if isinstance(answer, int):
            self._new.append(Instruction(_GIVE, 0, 0, answer))
            return
        self._new += answer.load
        at = len(self._new)
        self._new.append(Instruction(answer.code, 0, 0, answer.k))
        self._say(answer.false)
        length = len(self._new) - at - 1
        if length > _FARTHEST:
            raise _Strange
        self._new[at] = self._new[at]._replace(true=length)
        self._say(answer.true)


def _compares(instruction: Instruction) -> bool:
    return instruction.code in (_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT)


def _holds(instruction: Instruction, loaded: int, value: int) -> bool:
    """Whether a comparison of what is known holds. Raises _Strange for one that ranges do not follow."""
    code, k = instruction.code, instruction.k
    if code == _EQUAL:
        return value == k
    if loaded == _NUMBER and code in (_GREATER, _AT_LEAST):
        return value > k if code == _GREATER else value >= k
    raise _Strange
