"""Resource limits: what may be said, and how far up one gets."""

from __future__ import annotations

from typing import Any, get_args

import pydantic
import pytest
from pycore.hookspecs import Host
from pycore.ops import Context
from pycore.testing.fake import FakeKernel
from pycore_isolation.limits import Limits, Resource, pycore_confine
from pycore_isolation.ops.capabilities import mask
from pycore_isolation.ops.limits import RESOURCES, UNLIMITED, ResourceLimit

PROC_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 4096                 files
Max core file size        0                    unlimited            bytes
"""


def test_the_words_are_the_kernels() -> None:
    assert set(get_args(Resource)) == set(RESOURCES)


def test_one_number_or_two(make: Any, host: Host) -> None:
    container = make(ulimits={"nofile": {"soft": 10, "hard": 20}, "core": 0, "stack": -1})
    assert list(pycore_confine(container, host)) == [
        ResourceLimit("core", 0, 0),
        ResourceLimit("nofile", 10, 20),
        ResourceLimit("stack", UNLIMITED, UNLIMITED),
    ]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (100, ResourceLimit("nofile", 100, 100)),
        (100_000, ResourceLimit("nofile", 4096, 4096)),
        (-1, ResourceLimit("nofile", 4096, 4096)),
        ({"soft": 100, "hard": -1}, ResourceLimit("nofile", 100, 4096)),
    ],
)
def test_without_the_capability_the_callers_limit_is_the_highest(
    make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, wanted: object, got: ResourceLimit
) -> None:
    kernel.add_file("/proc/self/limits", PROC_LIMITS)
    monkeypatch.setattr(kernel, "capabilities", lambda: mask(["CHOWN"]))
    assert list(pycore_confine(make(ulimits={"nofile": wanted, "core": -1}), host)) == [
        ResourceLimit("core", -1, -1),
        got,
    ]


NO_LIMITS = [{"soft": 2, "hard": 1}, {"soft": -1, "hard": 1}, {"soft": 1}, "1", -2, True, 1 << 63]


@pytest.mark.parametrize("wanted", NO_LIMITS)
def test_what_is_no_limit(wanted: object) -> None:
    with pytest.raises(pydantic.ValidationError):
        Limits.model_validate({"ulimits": {"nofile": wanted}})


def test_unknown_resource() -> None:
    with pytest.raises(pydantic.ValidationError):
        Limits.model_validate({"ulimits": {"files": 1}})


def test_set(kernel: FakeKernel) -> None:
    ResourceLimit("nofile", 1, 2).do(Context(kernel))
    assert kernel.me.settings[f"set_rlimit {RESOURCES['nofile']}"] == (1, 2)
