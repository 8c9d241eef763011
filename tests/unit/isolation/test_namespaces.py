"""Namespaces, names and ids."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from pycore.hookspecs import Host
from pycore.launch.idmap import MapIds, root_id
from pycore.launch.namespaces import Namespaces
from pycore.ops import Context
from pycore.testing.fake import FakeKernel
from pycore_isolation.namespaces import (
    FIRST_RANGE,
    LAST_RANGE,
    RANGE,
    Names,
    default_hostname,
    id_range,
    pycore_attach,
    pycore_enter,
    pycore_launch,
)
from pycore_isolation.ops.namespaces import Hostname


def test_described(make: Any, host: Host) -> None:
    container = make()
    assert list(pycore_launch(container, host)) == [Namespaces(("mount", "pid", "uts", "ipc"))]
    assert list(pycore_attach(container, host)) == []
    assert list(pycore_enter(container, host)) == [Hostname("web")]


def test_described_with_a_user_namespace(make: Any, host: Host) -> None:
    container = make(userns="200000:1000")
    (namespaces,) = pycore_launch(container, host)
    assert isinstance(namespaces, Namespaces)
    assert "user" in namespaces.kinds
    assert list(pycore_attach(container, host)) == [MapIds(200000, 1000)]


@pytest.mark.parametrize(
    ("name", "hostname"),
    [("web", "web"), ("my_db", "my-db"), ("a.b", "a.b"), ("x-", "x"), ("a__", "a"), ("0", "0")],
)
def test_a_containers_name_as_host_name(name: str, hostname: str) -> None:
    assert default_hostname(name) == hostname
    Names(hostname=hostname)


@pytest.mark.parametrize("hostname", ["", "-a", "a-", "a_b", "a" * 64, "ä", "a b", "a\n"])
def test_what_is_no_host_name(hostname: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        Names(hostname=hostname)


def test_an_apps_containers_share_a_range_and_apps_do_not(make: Any) -> None:
    first, count = id_range(make("web", userns="auto"))
    assert id_range(make("db", userns="auto")) == (first, count)
    assert id_range(make("web", app="other", userns="auto")) != (first, count)
    assert count == RANGE
    assert first % RANGE == 0
    assert FIRST_RANGE * RANGE <= first <= LAST_RANGE * RANGE


@pytest.mark.parametrize("userns", ["", "yes", "0:100", "5:0", "1:4294967295", "9999999999:1", "1:2:3", "-1:5"])
def test_what_is_no_range(userns: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        Names(userns=userns)


def test_maps_are_written_for_the_process(kernel: FakeKernel) -> None:
    kernel.add_process(77)
    MapIds(65536, 1000).do(Context(kernel, pid=77))
    assert kernel.read("/proc/77/uid_map") == kernel.read("/proc/77/gid_map") == "0 65536 1000\n"


def test_who_is_root_inside() -> None:
    assert root_id([Hostname("a"), MapIds(65536, 1000)]) == 65536
    assert root_id([Hostname("a")]) == 0
