"""Which capabilities are kept, and how."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from pycore.hookspecs import Host
from pycore.ops import Context
from pycore.testing.fake import FakeKernel
from pycore_isolation.capabilities import DEFAULT, Privileges, pycore_confine, pycore_requirements
from pycore_isolation.ops.capabilities import NAMES, Bounding, Capabilities, NoNewPrivileges, mask, names

EVERYTHING = set(NAMES)


@pytest.mark.parametrize(
    ("add", "drop", "kept"),
    [
        ([], [], set(DEFAULT)),
        (["NET_ADMIN"], [], {*DEFAULT, "NET_ADMIN"}),
        (["cap_net_admin"], ["CHOWN"], {*DEFAULT, "NET_ADMIN"} - {"CHOWN"}),
        ([], ["ALL"], set()),
        (["CHOWN"], ["ALL"], {"CHOWN"}),
        (["ALL"], [], EVERYTHING),
        (["all"], ["SYS_ADMIN"], EVERYTHING - {"SYS_ADMIN"}),
        (["CHOWN"], ["CHOWN"], set(DEFAULT)),
    ],
)
def test_granted(add: list[str], drop: list[str], kept: set[str]) -> None:
    section = Privileges.model_validate({"cap_add": add, "cap_drop": drop})
    assert set(names(section.granted())) == kept


def test_docker_has_the_same_default() -> None:
    assert mask(DEFAULT) == 0xA80425FB  # CapEff in any container of Docker's


def test_a_name_that_is_none_brings_the_nearest() -> None:
    with pytest.raises(pydantic.ValidationError, match="no such capability: 'CAP_NET_ADMN'; did you mean 'NET_ADMIN'"):
        Privileges.model_validate({"cap_add": ["CAP_NET_ADMN"]})


def test_the_same_capability_written_otherwise_is_no_change() -> None:
    assert Privileges.model_validate({"cap_add": ["CAP_BPF"]}) == Privileges.model_validate({"cap_add": ["bpf"]})


def test_described(make: Any, host: Host) -> None:
    assert list(pycore_confine(make(cap_drop=["ALL"], cap_add=["CHOWN"]), host)) == [
        Bounding(1, 40),
        Capabilities(1),
        NoNewPrivileges(),
    ]
    assert NoNewPrivileges() not in list(pycore_confine(make(no_new_privileges=False), host))


def test_nobody_gives_what_he_lacks(make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "capabilities", lambda: mask(["CHOWN", "KILL"]))
    bounding, kept, _ = pycore_confine(make(cap_add=["ALL"]), host)
    assert isinstance(bounding, Bounding)
    assert names(bounding.keep) == ["CHOWN", "KILL"]
    assert kept == Capabilities(bounding.keep)
    (requirement,) = pycore_requirements(kernel)
    assert not requirement.met
    assert "SETUID" in requirement.why


def test_in_a_user_namespace_all_are_there_to_be_given(
    make: Any, host: Host, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "capabilities", lambda: 0)
    assert Capabilities(mask(DEFAULT)) in list(pycore_confine(make(userns="auto"), host))


def test_everything_else_leaves_the_bounding_set(kernel: FakeKernel) -> None:
    Bounding(mask(["CHOWN", "BPF"]), 40).do(Context(kernel))
    dropped = kernel.me.settings["drop_bounding"]
    assert sorted(dropped) == sorted(set(range(41)) - {NAMES.index("CHOWN"), NAMES.index("BPF")})


def test_root_keeps_them_and_nothing_is_handed_on(kernel: FakeKernel) -> None:
    Capabilities(5).do(Context(kernel))
    assert kernel.me.settings["set_capabilities"] == (5, 5, 0)
    assert kernel.me.settings["set_ambient"] == ()


def test_another_user_keeps_none(kernel: FakeKernel) -> None:
    kernel.set_user(1000, 1000, ())
    Capabilities(5).do(Context(kernel))
    assert kernel.me.settings["set_capabilities"] == (0, 0, 0)
