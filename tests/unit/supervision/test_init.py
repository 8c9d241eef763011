"""``init``: how it is described, and what happens where the wheel is missing."""

from __future__ import annotations

import os
from typing import Any

import pytest
from pycore.hookspecs import Host
from pycore.linux import libc
from pycore.ops import Context, from_record, to_record
from pycore.testing.fake import FakeKernel
from pycore_supervision import init
from pycore_supervision.init import program, pycore_enter, pycore_requirements
from pycore_supervision.ops.init import Init


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "program", lambda: "")


def test_program_of_the_wheel_is_static() -> None:
    """A dynamic one would need a loader and a C library that an image need not have."""
    path = program()
    assert os.path.isabs(path)
    with open(path, "rb") as file:
        content = file.read()
    assert content[:4] == b"\x7fELF"
    assert b"ld-linux" not in content or os.uname().machine != "x86_64"


def test_nothing_without_the_field(make: Any, host: Host) -> None:
    assert list(pycore_enter(make(), host)) == []


def test_host_file_becomes_a_read_only_mount_in_no_place(make: Any, host: Host, kernel: FakeKernel) -> None:
    kernel.add_file(program(), "ELF")
    [operation] = pycore_enter(make(init=True), host)
    assert isinstance(operation, Init)
    assert from_record(to_record(operation)) == operation
    ctx = Context(kernel)
    operation.hold(ctx)
    operation.do(ctx)
    assert ctx.init
    tree, words = ctx.init
    assert words == ("dumb-init", "--")
    mount = kernel._mount(tree)
    assert mount.attributes & libc.MOUNT_ATTR_RDONLY
    assert mount.attributes & libc.MOUNT_ATTR_NOSUID
    assert mount.target == ""
    os.close(tree)


@pytest.mark.usefixtures("missing")
def test_missing_wheel_is_a_problem_before_anything_is_done(make: Any, host: Host) -> None:
    assert list(pycore_enter(make(init=True), host)) == []
    [problem] = host.problems
    assert problem.path == ("init",)
    assert problem.hint == "pip install dumb-init"


@pytest.mark.usefixtures("missing")
def test_missing_wheel_is_said_by_doctor(host: Host) -> None:
    [requirement] = pycore_requirements(host.look)
    assert not requirement.met
    assert requirement.mend == "pip install dumb-init"


def test_wheel_that_is_there(host: Host, kernel: FakeKernel) -> None:
    kernel.add_file(program(), "ELF")
    [requirement] = pycore_requirements(host.look)
    assert requirement.met
