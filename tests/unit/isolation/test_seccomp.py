"""What the default profile says to calls, by running the compiled filter; and where the filter is kept."""

from __future__ import annotations

import errno
import json
import platform
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.ops import Context
from pycore.testing.fake import FakeKernel
from pycore_isolation import compile as compiler
from pycore_isolation import seccomp
from pycore_isolation.compile import Outcome, compile_filter, resolve
from pycore_isolation.ops.seccomp import EarlyFilter, Filter, KeepFilter, read_kept
from pycore_isolation.profile import RULES, Allow, Condition, Refuse

from .bpf import ALLOW, ERRNO, I386, X86_64, run

pytestmark = pytest.mark.needs("libseccomp")
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls by their numbers on x86-64")

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
HIGH = 1 << 32


@cache
def program(*granted: str) -> bytes:
    return compile_filter(RULES, frozenset(granted))


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_programs", {})


# -- the profile ---------------------------------------------------------------------------------------------

READ, SOCKET, CLONE, PTRACE, PERSONALITY = 0, 41, 56, 101, 135
PIVOT_ROOT, CHROOT, MOUNT, KEYCTL, UNSHARE = 155, 161, 165, 250, 272
OPEN_BY_HANDLE_AT, SETNS, GETRANDOM, BPF_CALL, USERFAULTFD = 304, 308, 318, 321, 323
IO_URING_SETUP, CLONE3 = 425, 435
SIGCHLD, CLONE_THREAD_FLAGS = 17, 0x3D0F00
NEWUSER, NEWNS, NEWCGROUP = 0x10000000, 0x20000, 0x2000000


@x86_only
@pytest.mark.parametrize(
    ("call", "arguments", "action"),
    [
        (READ, (), ALLOW),
        (GETRANDOM, (), ALLOW),
        (PTRACE, (), ALLOW),
        (CHROOT, (), EPERM),
        (MOUNT, (), EPERM),
        (UNSHARE, (), EPERM),
        (SETNS, (), EPERM),
        (BPF_CALL, (), EPERM),
        (OPEN_BY_HANDLE_AT, (), EPERM),
        (KEYCTL, (), EPERM),
        (USERFAULTFD, (), EPERM),
        (IO_URING_SETUP, (), EPERM),
        (PIVOT_ROOT, (), EPERM),
        (CLONE3, (), ENOSYS),
        (999, (), ENOSYS),
        (CLONE, (SIGCHLD,), ALLOW),
        (CLONE, (CLONE_THREAD_FLAGS,), ALLOW),
        (CLONE, (SIGCHLD | NEWUSER,), EPERM),
        (CLONE, (SIGCHLD | NEWNS | NEWUSER,), EPERM),
        (CLONE, (SIGCHLD | NEWCGROUP,), EPERM),
        (CLONE, (SIGCHLD | NEWUSER | HIGH,), EPERM),
        (SOCKET, (1,), ALLOW),
        (SOCKET, (10,), ALLOW),
        (SOCKET, (10 | HIGH,), ALLOW),
        (SOCKET, (38,), ENOSYS),
        (SOCKET, (40,), ENOSYS),
        (SOCKET, (40 | HIGH,), ENOSYS),
        (PERSONALITY, (0,), ALLOW),
        (PERSONALITY, (0xFFFFFFFF,), ALLOW),
        (PERSONALITY, (0x0040000,), ENOSYS),
    ],
)
def test_without_capabilities(call: int, arguments: tuple[int, ...], action: int) -> None:
    assert run(program(), X86_64, call, arguments) == action


@x86_only
@pytest.mark.parametrize(
    ("granted", "call", "arguments", "action"),
    [
        ("SYS_ADMIN", MOUNT, (), ALLOW),
        ("SYS_ADMIN", UNSHARE, (), ALLOW),
        ("SYS_ADMIN", CLONE, (SIGCHLD | NEWUSER,), ALLOW),
        ("SYS_ADMIN", CLONE3, (), ALLOW),
        ("SYS_ADMIN", BPF_CALL, (), ALLOW),
        ("SYS_ADMIN", CHROOT, (), EPERM),
        ("SYS_ADMIN", KEYCTL, (), EPERM),
        ("BPF", BPF_CALL, (), ALLOW),
        ("BPF", MOUNT, (), EPERM),
        ("SYS_CHROOT", CHROOT, (), ALLOW),
        ("DAC_READ_SEARCH", OPEN_BY_HANDLE_AT, (), ALLOW),
    ],
)
def test_with_a_capability(granted: str, call: int, arguments: tuple[int, ...], action: int) -> None:
    assert run(program(granted), X86_64, call, arguments) == action


I386_SOCKETCALL, I386_SOCKET, I386_READ, I386_MOUNT, I386_IPC, I386_BIND = 102, 359, 3, 21, 117, 361
SYS_SOCKET, SYS_BIND, SHMGET = 1, 2, 23


@x86_only
@pytest.mark.parametrize(
    ("call", "arguments", "action"),
    [
        (I386_READ, (), ALLOW),
        (I386_MOUNT, (), EPERM),
        (I386_SOCKET, (2,), ALLOW),
        (I386_SOCKET, (40,), ENOSYS),
        (I386_BIND, (), ALLOW),
        (I386_SOCKETCALL, (SYS_BIND,), ALLOW),
        (I386_SOCKETCALL, (SYS_SOCKET,), ENOSYS),
        (I386_IPC, (SHMGET,), ALLOW),
    ],
)
def test_the_32_bit_calls_are_no_way_around(call: int, arguments: tuple[int, ...], action: int) -> None:
    assert run(program(), I386, call, arguments) == action


@x86_only
@pytest.mark.parametrize("call", [READ, MOUNT])
def test_x32_and_other_architectures_have_no_calls(call: int) -> None:
    assert run(program(), X86_64, call | 0x40000000) == ENOSYS
    assert run(program(), 0xC00000B7, call) == ENOSYS


def test_names_are_known_or_newer_than_the_library() -> None:
    library = compiler.libseccomp()
    newest = {"riscv_hwprobe", "mseal", "listmount", "statmount", "open_tree_attr", "getxattrat", "listxattrat"}
    newest |= {"uretprobe", "removexattrat", "setxattrat", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr"}
    newest |= {"cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "map_shadow_stack"}
    unknown = {call for call in resolve(RULES, frozenset()) if library.resolve_syscall(library.Arch.NATIVE, call) == -1}
    assert unknown <= newest


COMMON = Path("/usr/share/containers/seccomp.json")
"""The profile of Podman and CRI-O, from Debian's golang-github-containers-common."""

TIGHTER = """
    clone3 fsconfig fsmount fsopen fspick get_mempolicy ipc keyctl mbind mount mount_setattr move_mount open_tree
    pidfd_getfd pivot_root readdir reboot set_mempolicy setns sigaction signal sigpending sigsuspend socketcall syscall
    syslog timerfd umount umount2 unshare
"""


@pytest.mark.skipif(not COMMON.exists(), reason=f"no {COMMON}, with which this one is compared")
def test_what_another_profile_allows_and_this_one_does_not_is_known() -> None:
    theirs = {
        name
        for rule in json.loads(COMMON.read_text())["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule["includes"] and not rule["excludes"]
        for name in rule["names"]
    }
    ours = {call for call, outcomes in resolve(RULES, frozenset()).items() if any(each.allowed for each in outcomes)}
    assert theirs - ours <= set(TIGHTER.split())


def test_a_rule_gives_its_reason_and_no_call_is_listed_twice_in_it() -> None:
    for rule in RULES:
        assert rule.why
        calls = rule.calls.split()
        assert len(calls) == len(set(calls)), rule


def test_what_counts_most() -> None:
    condition = Condition(0, 1)
    rules = (Allow("", "a b", condition), Refuse("", "a b c"), Allow("", "b c d", capabilities=("X",)))
    assert resolve(rules, frozenset()) == {
        "a": [Outcome(True, condition)],
        "b": [Outcome(True, condition)],
        "c": [Outcome(False, None)],
        "d": [Outcome(False, None)],
    }
    always = [Outcome(True, None)]
    assert resolve(rules, frozenset({"X"})) == {"a": [Outcome(True, condition)], "b": always, "c": always, "d": always}


# -- the operations ------------------------------------------------------------------------------------------


def test_described(make: Any, host: Host) -> None:
    container = make()
    (kept,) = seccomp.pycore_prepare(container, host)
    (loaded,) = seccomp.pycore_confine(container, host)
    assert isinstance(kept, KeepFilter)
    assert type(loaded) is Filter
    assert kept.program == loaded.program == program("SYS_CHROOT")
    assert loaded.explain().startswith(f"system-call filter default: {loaded.allowed} calls allowed, sha256:")
    assert [kept, loaded] == [*seccomp.pycore_prepare(container, host), *seccomp.pycore_confine(container, host)]


def test_before_powers_go_where_that_is_the_only_way(make: Any, host: Host) -> None:
    (loaded,) = seccomp.pycore_confine(make(no_new_privileges=False), host)
    assert isinstance(loaded, EarlyFilter)


def test_unconfined(make: Any, host: Host) -> None:
    container = make(seccomp="unconfined")
    assert [*seccomp.pycore_prepare(container, host), *seccomp.pycore_confine(container, host)] == []


def test_capabilities_open_calls(make: Any, host: Host) -> None:
    (one,) = seccomp.pycore_prepare(make(cap_add=["SYS_ADMIN"]), host)
    (same,) = seccomp.pycore_prepare(make(cap_add=["SYS_ADMIN", "NET_ADMIN"]), host)
    (other,) = seccomp.pycore_prepare(make(), host)
    assert one == same
    assert isinstance(one, KeepFilter)
    assert isinstance(other, KeepFilter)
    assert (one.path, one.program) != (other.path, other.program)


def test_kept_and_found_again(make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (kept,) = seccomp.pycore_prepare(make(), host)
    assert isinstance(kept, KeepFilter)
    kept.do(Context(kernel))
    assert read_kept(kernel, kept.path) == kept.program
    monkeypatch.setattr(seccomp, "_programs", {})
    monkeypatch.setattr(seccomp, "compile_filter", lambda *_: pytest.fail("compiled again"))
    assert list(seccomp.pycore_prepare(make(), host)) == [kept]
    count = len(kernel.calls)
    kept.do(Context(kernel))
    assert len(kernel.calls) == count


def test_a_kept_filter_that_is_not_whole_is_not_believed(kernel: FakeKernel) -> None:
    kept = KeepFilter("/cache/x.bpf", b"12345678")
    kept.do(Context(kernel))
    kernel.replace("/cache/x.bpf", kernel.read_bytes("/cache/x.bpf")[:-1])
    assert read_kept(kernel, "/cache/x.bpf") is None
    kept.do(Context(kernel))
    assert read_kept(kernel, "/cache/x.bpf") == b"12345678"


def test_without_the_library(make: Any, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise PycoreError("no libseccomp", hint=compiler.MEND)

    monkeypatch.setattr(compiler, "libseccomp", missing)
    monkeypatch.setattr(seccomp, "libseccomp", missing)
    with pytest.raises(PycoreError) as caught:
        list(seccomp.pycore_prepare(make(), host))
    assert caught.value.hint == compiler.MEND
    requirement, _ = seccomp.pycore_requirements(host.look)
    assert not requirement.met
    assert list(seccomp.pycore_prepare(make(seccomp="unconfined"), host)) == []


def test_the_words_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(PycoreError) as caught:
        compiler.libseccomp()
    assert caught.value.hint
    assert "apt-get install libseccomp2" in caught.value.hint
    assert 'seccomp = "unconfined"' in caught.value.hint


def test_another_library_is_another_file(make: Any, host: Host, kernel: FakeKernel) -> None:
    (before,) = seccomp.pycore_prepare(make(), host)
    kernel.add_file("/usr/lib/libseccomp.so.2", "")
    (after,) = seccomp.pycore_prepare(make(), host)
    assert isinstance(before, KeepFilter)
    assert isinstance(after, KeepFilter)
    assert Path(before.path).parent == Path(after.path).parent
    assert before.path != after.path
