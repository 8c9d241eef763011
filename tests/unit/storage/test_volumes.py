"""Volumes and tmpfs: what is described, what is refused, on a host in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.hookspecs import Host
from pycore.image import Image, ImageConfig
from pycore.linux import idmap
from pycore.ops import Context
from pycore.spec import App, Container
from pycore.testing.fake import FakeKernel
from pycore_storage import volumes
from pycore_storage.ops.mounts import Bind, OwnVolume, Tmpfs, Volume
from pycore_storage.volumes import Mounts

Make = Callable[..., Container]
STORE = "/var/lib/pycore/volumes"


def test_a_named_volume_is_made_and_stays(make: Make, host: Host, kernel: FakeKernel) -> None:
    container = make(volumes=["data:/srv:ro"], declared={"data": None})
    (volume,) = volumes.pycore_prepare(container, host)
    assert volume == Volume(f"{STORE}/shop/data", STORE, note=f"{STORE}/.notes/shop/data.json")
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


def test_an_external_volume_must_be_there(make: Make, host: Host, kernel: FakeKernel) -> None:
    container = make(volumes=["data:/a"], declared={"data": None}, of_volume={"external": True})
    assert list(volumes.pycore_prepare(container, host)) == []
    (problem,) = host.problems
    assert (problem.message, problem.hint) == (
        "there is no volume data, which is external", "pycore volume create data",
    )  # fmt: skip
    kernel.add_file(f"{STORE}/.shared/data/", "")
    (volume,) = volumes.pycore_prepare(container, host)
    assert isinstance(volume, Volume)
    assert volume.path == f"{STORE}/.shared/data"


def test_a_new_volume_begins_with_what_the_image_has(make: Make, host: Host, kernel: FakeKernel) -> None:
    kernel.add_file("/layers/1/data/file", "from the image")
    image = Image("app:1", digest="sha256:0", layers=("/layers/1",))
    container = make(
        "app:1", of=image, volumes=["data:/data", "other:/data/x:nocopy"], declared={"data": None, "other": None}
    )
    for _ in range(2):
        for operation in volumes.pycore_prepare(container, host):
            operation.do(Context(kernel))
    assert kernel.read(f"{STORE}/shop/data/file") == "from the image"
    assert kernel.listdir(f"{STORE}/shop/other") == []
    assert sum(call.startswith("copy_from_layers") for call in kernel.calls) == 1
    assert json.loads(kernel.read(f"{STORE}/.notes/shop/data.json"))["labels"] == {}


@pytest.mark.parametrize(("there", "then"), [("", "from the image"), ("mine", "mine")])
def test_a_volume_that_is_there_gets_it_only_where_it_is_empty(
    make: Make, host: Host, kernel: FakeKernel, there: str, then: str
) -> None:
    kernel.add_file("/layers/1/data/file", "from the image")
    kernel.add_file(f"{STORE}/shop/data/{'file' if there else ''}", there)
    image = Image("app:1", digest="sha256:0", layers=("/layers/1",))
    container = make("app:1", of=image, volumes=["data:/data"], declared={"data": None})
    for operation in volumes.pycore_prepare(container, host):
        operation.do(Context(kernel))
    assert kernel.read(f"{STORE}/shop/data/file") == then


def test_volumes_that_an_image_asks_for_go_with_the_container(make: Make, host: Host, kernel: FakeKernel) -> None:
    config = ImageConfig(volumes=("/var/lib/db", "/data/", "/proc/x", "/dev", "/sys/", "relative"))
    image = Image("app:1", digest="sha256:0", layers=("/layers/1",), config=config)
    container = make("app:1", of=image, volumes=["data:/data"], declared={"data": None})
    kernel.add_file("/layers/1/", "")
    _, own = described = list(volumes.pycore_prepare(container, host))
    assert isinstance(own, OwnVolume)
    for operation in described:
        operation.do(Context(kernel))
    assert kernel.is_dir(own.path)
    assert Bind(own.path, "/var/lib/db", recursive=False, own=True) in volumes.pycore_enter(container, host)
    for operation in reversed(described):
        operation.undo(Context(kernel))
    assert not kernel.exists(own.path)
    assert kernel.is_dir(f"{STORE}/shop/data")


def test_ids_of_a_mount_count_more_than_those_of_its_volume(make: Make, host: Host, kernel: FakeKernel) -> None:
    container = make(volumes=["data:/a", "data:/b:uid=7"], declared={"data": None}, of_volume={"uid": 5, "gid": 6})
    for operation in volumes.pycore_prepare(container, host):
        operation.do(Context(kernel))
    one, other = volumes.pycore_enter(container, host)
    assert isinstance(one, Bind)
    assert isinstance(other, Bind)
    assert ((one.uid, one.gid), (other.uid, other.gid)) == ((5, 6), (7, 6))
    ctx = Context(kernel)
    one.hold(ctx)
    shown = kernel.descriptors[ctx.held[one]].options
    assert (shown["users"], shown["groups"]) == (
        idmap.lines(0, idmap.ALL, (0, 5)), idmap.lines(0, idmap.ALL, (0, 6)),
    )  # fmt: skip
    kernel.close_all()


@given(st.integers(0, 70000), st.integers(0, 65535), st.sampled_from([0, 100000]))
def test_a_map_swaps_two_ids_and_leaves_the_others(disk: int, seen: int, first: int) -> None:
    found: dict[int, int] = {}
    for line in idmap.lines(first, 65536, (disk, seen)).splitlines():
        inside, outside, length = map(int, line.split())
        assert length > 0
        for step in range(length):
            assert inside + step not in found
            found[inside + step] = outside + step
    expected = {each: first + each for each in range(65536)}
    if disk != seen:
        expected[disk] = first + seen
        if disk < 65536:
            expected[seen] = first + disk
        else:
            del expected[seen]
    assert found == expected


def test_inspect_says_where_the_data_is(make: Make, host: Host) -> None:
    container = make(volumes=["data:/srv:ro"], declared={"data": None})
    assert volumes.pycore_inspect(container, host) == {
        "volumes": [{"source": f"{STORE}/shop/data", "target": "/srv", "read_only": True}]
    }
