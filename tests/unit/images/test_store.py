"""The store: content, names, and who uses what, through crashes and beside others."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pycore.errors import NotFound
from pycore_images import documents
from pycore_images.content import CONFIG, INDEX, LAYER, MANIFEST, Damaged, Descriptor
from pycore_images.store import REF_NAME, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def an_image(store: Store, architecture: str = "amd64", tree: bool = True) -> Descriptor:
    layer = store.add_blob(io.BytesIO(f"layer for {architecture}".encode()), LAYER)
    config: dict[str, Any] = {
        "os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }  # fmt: skip
    if tree:
        incoming = store.ingest / "x"
        (incoming / "tree").mkdir(parents=True)
        store.take_layer(incoming, layer.digest)
    return store.add_document(
        documents.manifest_of(store.add_document(documents.encode(config), CONFIG), [layer]), MANIFEST
    )


def left_over(store: Store) -> list[str]:
    return os.listdir(store.ingest)


def test_reading_writes_nothing(store: Store, tmp_path: Path) -> None:
    assert not store.has_blob(f"sha256:{'0' * 64}")
    assert store.references() == {}
    assert store.holds() == {}
    assert store.resolve("docker.io/library/x:latest") is None
    assert not store.untag("x")
    assert os.listdir(tmp_path) == []


def test_content_is_there_by_its_digest(store: Store) -> None:
    descriptor = store.add_document(b"{}", CONFIG)
    assert store.add_document(b"{}", CONFIG) == descriptor
    assert descriptor.digest == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    assert store.blob(descriptor.digest) == b"{}"
    long = store.add_blob(io.BytesIO(b"x" * 3_000_000), LAYER)
    fd = store.open_blob(long.digest)
    store.blob_path(long.digest).unlink()
    assert os.pread(fd, 4, 2_999_996) == b"xxxx"
    os.close(fd)
    with pytest.raises(NotFound, match="not in the store"):
        store.open_blob(long.digest)
    assert left_over(store) == []


def test_it_is_closed_to_others(store: Store) -> None:
    store.prepare()
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_content_that_has_changed(store: Store) -> None:
    descriptor = store.add_document(b"{}", CONFIG)
    store.blob_path(descriptor.digest).write_bytes(b"[]")
    with pytest.raises(Damaged, match="not what its digest says"):
        store.blob(descriptor.digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "sha256:" + "A" * 64, "x" * 64])
def test_what_is_no_digest(store: Store, digest: str) -> None:
    for ask in (store.has_blob, store.open_blob, store.layer_tree):
        with pytest.raises(Damaged, match="no digest"):
            ask(digest)


def test_an_image(store: Store) -> None:
    image = store.image(an_image(store))
    assert image.config.platform.architecture == "amd64"
    assert store.layer_trees(image) == (store.layer_tree(image.config.diff_ids[0]),)
    assert left_over(store) == []


def test_an_image_whose_layer_is_not_there(store: Store) -> None:
    image = store.image(an_image(store, tree=False))
    with pytest.raises(NotFound, match="layer sha256"):
        store.layer_trees(image)


def test_an_index(store: Store) -> None:
    platforms = ("amd64", "s390x")
    manifests = [
        Descriptor(each.media_type, each.digest, each.size, platform={"os": "linux", "architecture": name})
        for name in platforms
        for each in [an_image(store, name)]
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [documents.describe(each) for each in manifests]}
    index = store.add_document(documents.encode(document), INDEX)
    for name, manifest in zip(platforms, manifests, strict=True):
        image = store.image(index, documents.Platform("linux", name))
        assert (image.root, image.descriptor) == (index, manifest)
    assert store.by_digest(index.digest) == index
    assert {each for each, _ in store.documents_of(index)} == set(manifests)
    store.blob_path(manifests[0].digest).unlink()
    assert {each for each, _ in store.documents_of(index)} == {manifests[1]}


def test_an_index_that_leads_to_indexes(store: Store) -> None:
    """Each in the next, deeper than anybody has a use for."""
    inner = an_image(store)
    for _ in range(6):
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [documents.describe(inner)]}
        inner = store.add_document(documents.encode(document), INDEX)
    with pytest.raises(Damaged, match="indexes within indexes"):
        store.image(inner)


def test_names(store: Store) -> None:
    image = an_image(store)
    store.tag("docker.io/library/x:latest", image)
    store.tag("docker.io/library/x:1", image)
    assert set(store.references()) == {"docker.io/library/x:latest", "docker.io/library/x:1"}
    assert store.resolve("docker.io/library/x:1") == image
    assert store.untag("docker.io/library/x:1")
    assert not store.untag("docker.io/library/x:1")
    assert Store(store.root).references() == {"docker.io/library/x:latest": image}
    written = json.loads((store.root / "index.json").read_text())
    assert written["manifests"][0]["annotations"][REF_NAME] == "docker.io/library/x:latest"
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_a_name_for_what_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound):
        store.tag("x", Descriptor(MANIFEST, f"sha256:{'0' * 64}", 2))


def test_nobody_removes_what_just_gets_a_name(store: Store) -> None:
    image = an_image(store)
    ends: list[BaseException | None] = []

    def tag() -> None:
        try:
            store.tag("x", image)
            ends.append(None)
        except NotFound as error:
            ends.append(error)

    with store.guard(exclusive=True):
        thread = threading.Thread(target=tag)
        thread.start()
        thread.join(0.2)  # it waits for us
        store.blob_path(image.digest).unlink()
    thread.join()
    assert isinstance(ends[0], NotFound)
    assert store.references() == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"manifests": 1}', '{"manifests": [1]}', "\x00"])
def test_a_damaged_index(store: Store, content: str) -> None:
    store.prepare()
    (store.root / "index.json").write_text(content)
    with pytest.raises(Damaged):
        store.references()


def test_many_name_at_once(store: Store) -> None:
    image = an_image(store)
    threads = [threading.Thread(target=store.tag, args=(f"x:{number}", image)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.references()) == 20


def test_holds(store: Store) -> None:
    image = an_image(store)
    store.hold("shop.web", [image.digest])
    assert store.holds() == {"shop.web": {image.digest}}
    store.hold("shop.web", [])
    assert store.holds() == {"shop.web": set()}
    store.release("shop.web")
    store.release("shop.web")
    assert store.holds() == {}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\n", "x" * 300])
def test_no_name_of_who_holds(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        store.hold(name, [])


def test_who_passes_by(store: Store) -> None:
    digest = an_image(store).digest
    with store.passing([digest]):
        assert list(store.holds().values()) == [{digest}]
    assert store.holds() == {}


def test_who_passed_by_and_died(store: Store) -> None:
    code = """
import os, sys
from pathlib import Path
from pycore_images.store import Store
with Store(Path(sys.argv[1])).passing(sys.argv[2:]):
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root), an_image(store).digest], capture_output=True, check=False
    )
    assert done.stdout == b"held\n"
    assert len(os.listdir(store.root / "holds")) == 1
    assert store.holds() == {}


def test_alone_means_alone(store: Store) -> None:
    entered = threading.Event()

    def look() -> None:
        with store.guard():
            entered.set()

    with store.guard(), store.guard():
        pass
    with store.guard(exclusive=True):
        other = threading.Thread(target=look)
        other.start()
        assert not entered.is_set()
    other.join()
    assert entered.is_set()


def test_one_brings_what_another_waits_for(store: Store) -> None:
    """The file of the lock goes with who has it: whoever waits for it then takes a new one."""
    inside = 0
    most = 0

    def bring() -> None:
        nonlocal inside, most
        for _ in range(50):
            with store.ingesting("x"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert left_over(store) == []


def test_a_layer_that_another_has_brought(store: Store) -> None:
    diff_id = f"sha256:{'1' * 64}"
    store.prepare()
    for name in ("a", "b"):
        (store.ingest / name / "tree" / name).mkdir(parents=True)
        store.take_layer(store.ingest / name, diff_id)
    assert os.listdir(store.layer_tree(diff_id)) == ["a"]
    assert left_over(store) == []
