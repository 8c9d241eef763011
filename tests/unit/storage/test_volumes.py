"""Volumes and tmpfs: what is described, what is refused, on a host in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.hookspecs import Host
from pycore.ops import Context
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_storage import volumes
from pycore_storage.ops.mounts import Bind, Tmpfs, Volume
from pycore_storage.volumes import Mounts

Make = Callable[..., Container]
STORE = "/var/lib/pycore/volumes"


def test_a_named_volume_is_made_and_stays(make: Make, host: Host, kernel: FakeKernel) -> None:
    container = make(volumes=["data:/srv:ro"], declared={"data": None})
    (volume,) = volumes.pycore_prepare(container, host)
    assert volume == Volume(f"{STORE}/shop/data", STORE)
    volume.do(Context(kernel))
    volume.do(Context(kernel))
    volume.undo(Context(kernel))
    assert kernel.is_dir(f"{STORE}/shop/data")
    assert volumes.pycore_enter(container, host) == [
        Bind(f"{STORE}/shop/data", "/srv", read_only=True, recursive=False, own=True)
    ]


def test_a_volume_belongs_to_root_inside_in_every_user_namespace(make: Make, host: Host, kernel: FakeKernel) -> None:
    container = make(volumes=["data:/srv"], declared={"data": None})
    (volume,) = volumes.pycore_prepare(container, host)
    volume.do(Context(kernel, root_id=100000))
    assert kernel.files.get(f"{STORE}/shop/data").uid == 0
    (bind,) = volumes.pycore_enter(container, host)
    assert isinstance(bind, Bind)
    bind.hold(Context(kernel, root_id=100000, id_count=65536))
    assert any("'0 100000 65536\\n'" in call for call in kernel.calls if call.startswith("mount_owners"))
    kernel.close_all()


def test_volumes_with_one_name_are_one(make: Make, host: Host) -> None:
    container = make(volumes=["a:/a", "b:/b"], declared={"a": "uploads", "b": "uploads"})
    assert {operation.explain() for operation in volumes.pycore_prepare(container, host)} == {
        f"make the volume {STORE}/.shared/uploads, unless it is there"
    }


def test_paths_of_the_host(make: Make, host: Host, kernel: FakeKernel) -> None:
    kernel.add_file("/spec/site/", "")
    kernel.add_file("/etc/passwd", "")
    container = make(volumes=["./site:/srv", "/etc/passwd:/etc/passwd:ro"])
    assert list(volumes.pycore_prepare(container, host)) == []
    assert host.problems == []
    assert volumes.pycore_enter(container, host) == [
        Bind("/spec/site", "/srv"),
        Bind("/etc/passwd", "/etc/passwd", read_only=True, directory=False),
    ]


def test_a_path_that_is_not_there(make: Make, host: Host) -> None:
    container = make(volumes=["data:/data", "./si te:/srv"], declared={"data": None})
    list(volumes.pycore_prepare(container, host))
    (problem,) = host.problems
    assert problem.path == ("storage", "volumes", 1)
    assert problem.message == "there is no /spec/si te"
    assert problem.hint == "mkdir -p '/spec/si te'"


def test_memory(make: Make, host: Host) -> None:
    container = make(tmpfs=["/run", "/tmp:size=1M,mode=700,exec"])
    assert volumes.pycore_enter(container, host) == [Tmpfs("/run"), Tmpfs("/tmp", 1 << 20, 0o700, executable=True)]


@given(st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/b", "/b/a", "/c/d/e"]), unique=True), st.randoms())
def test_outer_places_come_first(targets: list[str], random: Any) -> None:
    kinds = [random.choice(["volumes", "tmpfs"]) for _ in targets]
    fields = {
        "volumes": [f"/srv:{target}" for target, kind in zip(targets, kinds, strict=True) if kind == "volumes"],
        "tmpfs": [target for target, kind in zip(targets, kinds, strict=True) if kind == "tmpfs"],
    }
    host = Host(FakeKernel(), Path("/run/pycore"), Path("/var/lib/pycore"))
    operations = volumes.pycore_enter(_container(fields), host)
    order = [operation.target for operation in operations if isinstance(operation, (Bind, Tmpfs))]
    assert sorted(order) == sorted(targets)
    for outer, inner in itertools.combinations(order, 2):
        assert not outer.startswith(f"{inner}/")


def _container(fields: dict[str, Any]) -> Container:
    return Container(App("shop", Path("/spec")), "web", {}, {Mounts: Mounts.model_validate(fields)}, id="1")


def test_a_volume_that_is_not_declared(make: Make) -> None:
    container = make(volumes=["data:/a", "daat:/b", "xyz:/c"], declared={"data": None})
    first, second = volumes.pycore_validate(container.app)
    assert (first.path, first.hint) == (("container", "web", "storage", "volumes", 1), 'did you mean "data"?')
    assert (second.path, second.hint) == (
        ("container", "web", "storage", "volumes", 2),
        "declare it: [volume.xyz]",
    )


def test_a_place_that_is_taken_twice(make: Make) -> None:
    container = make(volumes=["/a:/x", "/b:/x/"], tmpfs=["/y", "//x", "/y/."])
    assert [(problem.path[3:], problem.message) for problem in volumes.pycore_validate(container.app)] == [
        (("volumes", 1), "/x is taken by volumes[0] already"),
        (("tmpfs", 1), "/x is taken by volumes[0] already"),
        (("tmpfs", 2), "/y is taken by tmpfs[0] already"),
    ]


@pytest.mark.parametrize("fields", [{"volumes": ["nowhere"]}, {"tmpfs": ["tmp"]}, {"volumes": ["a:/b\0c"]}])
def test_fields_are_checked_one_by_one(fields: dict[str, list[str]]) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Mounts.model_validate(fields)
    (error,) = caught.value.errors()
    assert error["loc"] == (next(iter(fields)), 0)


def test_run_declares_the_volumes_that_it_names() -> None:
    table = {"volumes": ["data:/a", "./x:/b", "logs:/c:ro", "nonsense"]}
    source = {"container": {"c": {"image": "host", "storage": table}}}
    assert volumes.pycore_run(source, "c") == {"volume": {"data": {"name": "data"}, "logs": {"name": "logs"}}}
    assert volumes.pycore_run({"container": {"c": {"image": "host"}}}, "c") == {}


def test_inspect_says_where_the_data_is(make: Make, host: Host) -> None:
    container = make(volumes=["data:/srv:ro"], declared={"data": None})
    assert volumes.pycore_inspect(container, host) == {
        "volumes": [{"source": f"{STORE}/shop/data", "target": "/srv", "read_only": True}]
    }
