"""From a profile to the program that the kernel runs at each system call, through libseccomp."""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterable
from types import ModuleType
from typing import NamedTuple

from pycore.errors import PycoreError

from pycore_isolation.profile import Allow, Condition, Rule
from pycore_isolation.shorten import shorten

MEND = "apt-get install libseccomp2"

COMPANIONS = {"x86_64": ("X86",), "aarch64": ("ARM",)}
"""The 32-bit architectures whose programs a machine runs too. Not x32, which hardly a kernel is built with."""

_UNKNOWN = -1
"""What libseccomp says to a name that it does not know (__NR_SCMP_ERROR)."""

_AUDIT_ARCH_I386, _SOCKETCALL, _SYS_SOCKET, _RET_ERRNO = 0x40000003, 102, 1, 0x00050000


def libseccomp() -> ModuleType:
    """The library. Raises PycoreError where it is missing.

    Imported late, because finding it takes ten times as long as compiling a profile.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise PycoreError(
            f"the seccomp profile cannot be compiled: {error}",
            hint=f'{MEND}; or go without the filter: seccomp = "unconfined" in [container.NAME.isolation]',
        ) from error
    return pyseccomp


def compile_filter(rules: Iterable[Rule], granted: frozenset[str]) -> bytes:
    """The program, as an array of struct sock_filter, for a holder of these capabilities.

    A call of an architecture that the program does not know ends with ENOSYS like one that no rule names.
    Raises PycoreError where libseccomp is missing or refuses a rule.
    """
    library = libseccomp()
    unknown = library.ERRNO(errno.ENOSYS)
    program = library.SyscallFilter(unknown)
    program.set_attr(library.Attr.ACT_BADARCH, unknown)
    program.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a binary tree: half a millisecond less to load it
    for name in COMPANIONS.get(platform.machine(), ()):
        program.add_arch(getattr(library.Arch, name))
    for call, outcomes in resolve(rules, granted).items():
        number = library.resolve_syscall(library.Arch.NATIVE, call)
        for outcome in outcomes if number != _UNKNOWN else ():
            action = library.ALLOW if outcome.allowed else library.ERRNO(errno.EPERM)
            program.add_rule(action, number, *_comparison(library, outcome.when))
    with os.fdopen(os.memfd_create("seccomp"), "rb") as file:
        program.export_bpf(file)
        file.seek(0)
        return shorten(_no_socket_by_socketcall() + file.read())


def _no_socket_by_socketcall() -> bytes:
    """Instructions to go first: on 32-bit x86 a socket is made by socket(2) alone.

    libseccomp lets each call that socketcall(2) hides through there as well, but for `socket` forgets the
    conditions (x86_rule_add() in its src/arch-x86.c; 2.5.4), and with them which address families are allowed.
    C libraries have called socket(2) itself since Linux 4.3.
    """
    if platform.machine() != "x86_64":
        return b""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    number, arch, first_argument = 0, 4, 16  # in struct seccomp_data
    instructions = (
        (load, 0, 0, arch), (equal, 0, 5, _AUDIT_ARCH_I386),
        (load, 0, 0, number), (equal, 0, 3, _SOCKETCALL),
        (load, 0, 0, first_argument), (equal, 0, 1, _SYS_SOCKET),
        (give, 0, 0, _RET_ERRNO | errno.ENOSYS),
    )  # fmt: skip
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


class Outcome(NamedTuple):
    """What becomes of a call, always or where a condition holds."""

    allowed: bool
    when: Condition | None


def resolve(rules: Iterable[Rule], granted: frozenset[str]) -> dict[str, list[Outcome]]:
    """What becomes of each call that the rules name, for a holder of these capabilities.

    Several rules may name a call: allowed always counts most, then what depends on a condition, then refused.
    """
    named: dict[str, list[Outcome]] = {}
    for rule in rules:
        allowed = isinstance(rule, Allow) and (not rule.capabilities or not granted.isdisjoint(rule.capabilities))
        if allowed or rule.refused:
            for call in rule.calls.split():
                named.setdefault(call, []).append(Outcome(allowed, rule.when))
    always = Outcome(True, None)
    return {
        call: [always] if always in found else [outcome for outcome in found if outcome.when] or found[:1]
        for call, found in named.items()
    }


def _comparison(library: ModuleType, condition: Condition | None) -> list[object]:
    if condition is None:
        return []
    return [library.Arg(condition.argument, library.MASKED_EQ, condition.bits, condition.value)]
