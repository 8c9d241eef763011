"""The system-call filter of a container, compiled by libseccomp once and kept."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterable, Iterator
from typing import Literal

from pycore.errors import PycoreError
from pycore.hookspecs import Host, Requirement, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Change, Container, Section, setting

from pycore_isolation.capabilities import Privileges
from pycore_isolation.compile import MEND, compile_filter, libseccomp, resolve
from pycore_isolation.ops.capabilities import names
from pycore_isolation.ops.seccomp import EarlyFilter, Filter, KeepFilter, read_kept
from pycore_isolation.profile import RULES, Allow

DECISIVE = frozenset(name for rule in RULES if isinstance(rule, Allow) for name in rule.capabilities)
"""The capabilities that the profile makes a difference for."""


class Seccomp(Section):
    """``seccomp``."""

    table = "container.*.isolation"

    seccomp: Literal["default", "unconfined"] = setting(
        "default",
        doc='Which system calls there are: "default" leaves out those that containers should not need, but for those '
        'that a capability in `cap_add` is about; "unconfined" leaves out none.',
        change=Change.RESTART,
        flags=("--seccomp",),
        privileged="unconfined",
    )


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """``seccomp``."""
    return [Seccomp]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """The kernel's filter, and the library that compiles for it."""
    why = 'the default seccomp profile; without it only containers with seccomp = "unconfined" can start'
    try:
        libseccomp()
        there = True
    except PycoreError:
        there = False
    yield Requirement("libseccomp 2.5 or newer", met=there, why=why, mend=MEND)
    yield Requirement(
        "a kernel with seccomp filters",
        met=look.exists("/proc/sys/kernel/seccomp/actions_avail"),
        why=why,
        mend="use a kernel with CONFIG_SECCOMP_FILTER=y",
    )


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Keep the compiled filter for the next process."""
    if container[Seccomp].seccomp == "default":
        granted = _granted(container)
        yield KeepFilter(_kept_at(host, granted), _program(host, granted))


@hookimpl
def pycore_confine(container: Container, host: Host) -> Iterator[Operation]:
    """Load it, as late as the kernel allows."""
    if container[Seccomp].seccomp == "default":
        granted = _granted(container)
        kind = Filter if container[Privileges].no_new_privileges else EarlyFilter
        yield kind("default", _count(granted), _program(host, granted))


def _granted(container: Container) -> frozenset[str]:
    return DECISIVE.intersection(names(container[Privileges].granted()))


@functools.cache
def _count(granted: frozenset[str]) -> int:
    return sum(any(outcome.allowed for outcome in found) for found in resolve(RULES, granted).values())


_programs: dict[frozenset[str], bytes] = {}


def _program(host: Host, granted: frozenset[str]) -> bytes:
    """The compiled filter: from this process's memory, else kept by an earlier one, else from libseccomp."""
    program = _programs.get(granted)
    if program is None:
        program = read_kept(host.look, _kept_at(host, granted)) or compile_filter(RULES, granted)
        _programs[granted] = program
    return program


def _kept_at(host: Host, granted: frozenset[str]) -> str:
    """A path that names all that the program follows from."""
    return f"{host.data_dir}/cache/seccomp/{_key(granted, _library(host.look))}.bpf"


@functools.cache
def _key(granted: frozenset[str], library: str) -> str:
    source = repr(("in ranges", RULES, sorted(granted), platform.machine(), library))
    return hashlib.sha256(source.encode()).hexdigest()[:32]


def _library(look: Look) -> str:
    """The library's file, whose name says its version: loading it to ask would take longer than compiling."""
    directories = (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64", "/usr/lib")
    links = [f"{directory}/libseccomp.so.2" for directory in directories]
    return next((look.real(link) for link in links if look.exists(link)), "")
