"""A machine for classic BPF as seccomp(2) uses it: what a filter says to a call."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _AND, _JUMP, _EQUAL, _GREATER, _GREATER_EQUAL, _SET, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06


def run(program: bytes, arch: int, call: int, arguments: Sequence[int] = ()) -> int:
    """The action for struct seccomp_data of this call."""
    data = struct.pack("<iIQ6Q", call, arch, 0, *[*arguments, *[0] * 6][:6])
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator = counter = 0
    while True:
        code, true, false, k = instructions[counter]
        counter += 1
        if code == _LOAD:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == _AND:
            accumulator &= k
        elif code == _JUMP:
            counter += k
        elif code == _RETURN:
            return int(k)
        else:
            holds = {
                _EQUAL: accumulator == k,
                _GREATER: accumulator > k,
                _GREATER_EQUAL: accumulator >= k,
                _SET: accumulator & k,
            }[code]
            counter += true if holds else false
