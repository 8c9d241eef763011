"""Images on their way: pulled, loaded, saved, broken off, gone on with; and a lock moved on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore_images.content import Descriptor
from pycore_images.store import Store
from support.command import Command
from support.kept import keep, keep_index
from support.person import Person, until
from support.registry import registry
from support.scripted import Reply, Scripted

pytestmark = [pytest.mark.root, pytest.mark.needs("docker-registry")]


@pytest.fixture
def store(pycore: Command) -> Store:
    return Store(pycore.data_dir / "images")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Command]:
    """The command of another host, which has images to give."""
    (tmp_path / "elsewhere").mkdir()
    command = Command(tmp_path / "elsewhere")
    yield command
    command.end()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def name(address: str, request: pytest.FixtureRequest) -> str:
    """A name of the test's own in the registry."""
    return f"{address}/team/{re.sub('[^a-z]+', '_', request.node.name).strip('_')}:1"


def is_whole(store: Store, root: Descriptor) -> bool:
    image = store.image(root)
    return all(store.has_blob(layer.digest) and store.has_layer(diff_id) for layer, diff_id in image.layers)


def give(elsewhere: Command, name: str, *layers: str, **config: object) -> Descriptor:
    """An image in the registry."""
    store = Store(elsewhere.data_dir / "images")
    root = keep(store, *layers, **config)
    store.tag(name, root)
    elsewhere("push", "-q", name)
    return root


# -- pull ------------------------------------------------------------------------------------------------


def test_an_image_is_pulled_once(pycore: Command, elsewhere: Command, store: Store, name: str) -> None:
    root = give(elsewhere, name, "a", "b")
    repository = name.partition("/")[2].removesuffix(":1")
    out = pycore("pull", name)
    assert out.startswith(f"1: pulling from {repository}\n")
    assert out.count(": pull complete\n") == 2
    assert out.endswith(f"digest: {root.digest}\nstatus: downloaded newer image for {name}\n{name}\n")
    assert is_whole(store, root)
    assert (store.layer_tree(store.image(root).config.diff_ids[0]) / "a").read_text() == "a" * 5000
    assert all({"tree", "usage"} == set(os.listdir(each)) for each in (store.root / "layers").iterdir())
    assert "up to date" in pycore("image", "pull", name)
    assert pycore("pull", "-q", name) == f"{name}\n"
    *layers, last = map(json.loads, pycore("pull", "--json", name).splitlines())
    assert {layer["status"] for layer in layers} == {"waiting", "there"}
    assert last["digest"] == root.digest


def test_only_what_is_new_is_fetched(pycore: Command, elsewhere: Command, store: Store, name: str) -> None:
    give(elsewhere, name, "a", "b")
    pycore("pull", name)
    give(elsewhere, name, "a", "c")
    out = pycore("pull", name)
    assert out.count(": already exists\n") == 1
    assert out.count(": pull complete\n") == 1
    assert [row["tag"] for row in pycore.json("images")] == ["1", None]  # what it was before has no name any more


def test_all_tags_and_platforms(pycore: Command, elsewhere: Command, store: Store, name: str) -> None:
    give(elsewhere, name, "a")
    give(elsewhere, f"{name}0", "b")
    pycore("pull", "-a", name)
    assert sorted(row["tag"] for row in pycore.json("images")) == ["1", "10"]
    assert "not there for linux/s390x" in pycore.fails("pull", "--platform", "linux/s390x", _many(elsewhere, name))
    assert "no platform" in pycore.fails("pull", "--platform", "what", name, status=2)


def _many(elsewhere: Command, name: str) -> str:
    """An index, pushed."""
    store = Store(elsewhere.data_dir / "images")
    image = store.resolve(name)
    assert image
    store.tag(f"{name}-many", keep_index(store, image))
    elsewhere("push", "-q", f"{name}-many")
    return f"{name}-many"


def test_progress_of_a_pull_is_bars(pycore: Command, elsewhere: Command, name: str) -> None:
    give(elsewhere, name, "a")
    me = Person(pycore, "pull", name)
    try:
        me.sees("pull complete.*━━━━")
        me.sees("status: downloaded")
        assert me.ends() == 0
    finally:
        me.leave()


# -- broken off ------------------------------------------------------------------------------------------


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted().running() as server:
        yield server


def serve(server: Scripted, store: Store, root: Descriptor) -> None:
    """Have an image of one layer under its digest, and under the tag ``1``."""
    manifest = store.image(root).manifest
    about = {"Content-Type": root.media_type, "Docker-Content-Digest": root.digest}
    for path in ("1", root.digest):
        for method in ("HEAD", "GET"):
            server.on(f"{method} /v2/x/manifests/{path}", Reply(200, about, store.blob(root.digest)))
    for each in (manifest.config, *manifest.layers):
        server.on(f"GET /v2/x/blobs/{each.digest}", Reply(200, {}, store.blob(each.digest)))
    server.on("GET /v2/", Reply(200))


def stalls(server: Scripted, tmp_path: Path, *, then: bool) -> Descriptor:
    """Serve an image whose layer comes to a halt in its middle; ``then`` it comes whole, when it is asked for again."""
    store = Store(tmp_path / "origin")
    root = keep(store, "a")
    serve(server, store, root)
    (layer,) = store.image(root).manifest.layers
    data = store.blob(layer.digest)
    halt = Reply(200, {}, data, stall_at=len(data) // 2)
    server.on(f"GET /v2/x/blobs/{layer.digest}", halt, *([Reply(200, {}, data)] if then else []))
    return root


def blob_requests(server: Scripted) -> int:
    """How often the layer has been asked for: the last of what is."""
    return len(server.requests("GET /v2/x/blobs/")) - 1


def test_a_pull_is_broken_off_at_once(pycore: Command, store: Store, scripted: Scripted, tmp_path: Path) -> None:
    root = stalls(scripted, tmp_path, then=False)
    process = pycore.popen("pull", f"{scripted.address}/x:1")
    until(lambda: blob_requests(scripted) > 0)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()
    assert store.references() == {}
    assert not store.has_blob(store.image(root).manifest.layers[0].digest)
    assert {name.rpartition(".")[2] for name in os.listdir(store.ingest)} <= {"part"}
    assert "no image" in pycore.fails("rmi", f"{scripted.address}/x:1")


def test_a_pull_goes_on_in_the_next_supervisor(
    pycore: Command, store: Store, scripted: Scripted, tmp_path: Path
) -> None:
    root = stalls(scripted, tmp_path, then=True)
    process = pycore.popen("pull", f"{scripted.address}/x:1")
    until(lambda: blob_requests(scripted) > 0)
    os.kill(pycore.supervisor(), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.endswith(f"{scripted.address}/x:1\n")
    assert is_whole(store, root)


# -- load and save ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_what_is_saved_is_loaded(pycore: Command, elsewhere: Command, store: Store, tmp_path: Path, form: str) -> None:
    there = Store(elsewhere.data_dir / "images")
    one, two = keep(there, "shared", "one"), keep(there, "shared", "two")
    there.tag("docker.io/library/one:latest", one)
    there.tag("docker.io/library/two:2", two)
    elsewhere("save", "--format", form, "-o", str(tmp_path / "archive"), "one", "two:2")
    out = pycore("load", "-i", str(tmp_path / "archive"))
    assert [line for line in out.splitlines() if line.startswith("loaded image")] == [
        "loaded image: one:latest",
        "loaded image: two:2",
    ]
    assert is_whole(store, one)
    assert is_whole(store, two)
    assert {name: root.digest for name, root in store.references().items()} == {
        "docker.io/library/one:latest": one.digest,
        "docker.io/library/two:2": two.digest,
    }


def test_an_archive_goes_through_pipes(pycore: Command, elsewhere: Command, store: Store) -> None:
    there = Store(elsewhere.data_dir / "images")
    root = keep(there, "a")
    with elsewhere.popen("save", root.hex[:12]) as saving:
        loading = pycore.popen("load", stdin=saving.stdout)
        assert saving.stdout
        saving.stdout.close()
        out, err = loading.communicate(timeout=60)
        assert (loading.returncode, saving.wait(20)) == (0, 0), err
    assert f"loaded image id: {store.image(root).manifest.config.digest}\n" in out
    assert is_whole(store, root)


def test_a_load_from_a_pipe_is_broken_off(pycore: Command, store: Store) -> None:
    read, write = os.pipe()
    process = pycore.popen("load", stdin=read)
    os.close(read)
    os.write(write, b"\x1f\x8b")
    until(lambda: store.ingest.exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    process.communicate()
    os.close(write)
    assert os.listdir(store.ingest) == []


def test_what_cannot_be_meant_is_said(pycore: Command, store: Store, tmp_path: Path) -> None:
    assert "no such file" in pycore.fails("load", "-i", "nothing.tar")
    (tmp_path / "text").write_text("text")
    pycore.fails("load", "-i", str(tmp_path / "text"))
    assert "-o DIRECTORY" in pycore.fails("save", "--format", "oci-dir", "x", status=2)
    assert "no image" in pycore.fails("save", "-o", str(tmp_path / "out.tar"), "x")
    assert not (tmp_path / "out.tar").exists()
    assert "goes with --update" in pycore.fails("pull", "--dry-run", "x", status=2)


# -- the lock --------------------------------------------------------------------------------------------


def test_a_lock_is_moved_on_by_a_person(pycore: Command, elsewhere: Command, store: Store, name: str) -> None:
    old = give(elsewhere, name, "a", "b", Env=["VERSION=1", "MODE=x"], Cmd=["/bin/one"])
    file = pycore.write(f'name = "shop"\n[container.web]\nimage = "{name}"\n')
    lock = pycore.directory / "app.lock"
    out = pycore("pull", "--update", file)
    assert out.startswith(f"+ {name} at {old.hex[:12]}, ")
    assert f'[image."{name}"]\ndigest = "{old.digest}"\n' in lock.read_text()
    new = give(elsewhere, name, "a", "c", Env=["VERSION=2", "MODE=x"], Cmd=["/bin/two"])
    said = pycore("pull", "--update", "--dry-run", file)
    assert said.startswith(f"~ {name} from {old.hex[:12]} to {new.hex[:12]}\n")
    assert "    layers 2 -> 2 (1 of them the same)\n" in said
    assert "    environment VERSION 1 -> 2\n" in said
    assert "    command ['/bin/one'] -> ['/bin/two']\n" in said
    assert "MODE" not in said
    assert old.digest in lock.read_text()
    assert not store.has_blob(new.digest)
    change = json.loads(pycore("pull", "--update", "--dry-run", "--json", file))
    assert change["config"]["environment VERSION"] == {"old": "1", "new": "2"}
    pycore("image", "rm", "-f", name)  # what it was is then looked up in the registry
    assert pycore("pull", "--update", file).startswith(said)
    assert f'digest = "{new.digest}"' in lock.read_text()
    assert is_whole(store, new)
    assert pycore("pull", "--update", file) == f"  {name} is at {new.hex[:12]} still\n"


def test_what_was_said_is_what_is_fetched(pycore: Command, store: Store, scripted: Scripted, tmp_path: Path) -> None:
    """Though the tag has moved on in between."""
    there = Store(tmp_path / "there")
    old, new = keep(there, "a"), keep(there, "b")
    for root in (old, new):
        serve(scripted, there, root)
    heads = [{"Content-Type": each.media_type, "Docker-Content-Digest": each.digest} for each in (old, new)]
    bodies = [there.blob(each.digest) for each in (old, new)]
    scripted.on("HEAD /v2/x/manifests/1", *(Reply(200, *each) for each in zip(heads, bodies, strict=True)))
    file = pycore.write(f'name = "shop"\n[container.web]\nimage = "{scripted.address}/x:1"\n')
    pycore("pull", "--update", file)
    assert is_whole(store, old)
    assert not store.has_blob(new.digest)
    assert old.digest in (pycore.directory / "app.lock").read_text()


def test_a_lock_needs_a_spec(pycore: Command, tmp_path: Path) -> None:
    subprocess.run(
        ["mv", pycore.write('name = "shop"\n[container.web]\nimage = "host"\n'), tmp_path / "spec"], check=True
    )
    assert "has no lock" in pycore.fails("pull", "--update", str(tmp_path / "spec"), status=2)
