"""Images of the store on their way elsewhere: what is sent, in which order, and under which digest."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pycore.errors import NotFound, PycoreError
from pycore_images import documents
from pycore_images.content import Descriptor, Stream
from pycore_images.documents import Platform
from pycore_images.sending import send
from pycore_images.store import Store
from support.kept import keep_for, keep_index


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


class Shelf:
    """A sink that keeps what comes, in its order."""

    parallel = False

    def __init__(self, *there: str) -> None:
        self.there = {*there}
        self.order: list[str] = []
        self.root = ""

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.there

    def put(self, descriptor: Descriptor, stream: Stream) -> None:
        data = b"".join(iter(lambda: stream.read(1000), b""))
        assert len(data) == descriptor.size
        self.order.append(descriptor.digest)

    def finish(self, root: Descriptor, document: bytes) -> None:
        assert len(document) == root.size
        self.root = root.digest


HOST = documents.host_platform().architecture
OTHER = "s390x"


def test_an_index_goes_whole_where_all_of_it_is_here(store: Store) -> None:
    one, two = keep_for(store, HOST, "a"), keep_for(store, OTHER, "b")
    index, shelf = keep_index(store, one, two), Shelf()
    assert send(store, index, shelf) == index
    assert shelf.root == index.digest
    assert shelf.order[-2:] == [one.digest, two.digest]
    assert len(shelf.order) == 6  # a layer and a configuration of each


def test_an_index_within_an_index_goes_before_it(store: Store) -> None:
    one, two = keep_for(store, HOST, "a"), keep_for(store, OTHER, "b")
    inner = keep_index(store, two)
    index, shelf = keep_index(store, inner, one), Shelf()
    assert send(store, index, shelf) == index
    assert shelf.order[-3:] == [two.digest, inner.digest, one.digest]


def test_of_an_index_that_is_here_in_part_goes_the_image_for_this_host(store: Store) -> None:
    one, two = keep_for(store, HOST, "a"), keep_for(store, OTHER, "b")
    index = keep_index(store, two, one)
    store.blob_path(two.digest).unlink()
    shelf = Shelf()
    assert send(store, index, shelf).digest == shelf.root == one.digest


def test_a_pull_for_another_platform_that_broke_off_is_no_part_of_it(store: Store) -> None:
    one, two = keep_for(store, HOST, "a"), keep_for(store, OTHER, "b")
    index = keep_index(store, two, one)
    store.blob_path(documents.parse_manifest(store.blob(two.digest)).layers[0].digest).unlink()
    assert send(store, index, Shelf()).digest == one.digest


def test_what_is_here_for_another_platform_only_is_sent(store: Store) -> None:
    one, two = keep_for(store, HOST, "a"), keep_for(store, OTHER, "b")
    index = keep_index(store, one, two)
    store.blob_path(one.digest).unlink()
    assert send(store, index, Shelf()).digest == two.digest


def test_a_platform_that_is_asked_for(store: Store) -> None:
    one, two = keep_for(store, HOST, "a"), keep_for(store, OTHER, "b")
    index, shelf = keep_index(store, one, two), Shelf()
    assert send(store, index, shelf, platform=Platform("linux", OTHER)).digest == shelf.root == two.digest
    with pytest.raises(NotFound, match="not there for linux/mips"):
        send(store, index, Shelf(), platform=Platform("linux", "mips"))


def test_what_is_there_is_not_sent(store: Store) -> None:
    root = keep_for(store, HOST, "a", "b")
    manifest = documents.parse_manifest(store.blob(root.digest))
    shelf = Shelf(manifest.layers[0].digest)
    told: list[tuple[str, str]] = []
    send(store, root, shelf, progress=lambda layer, word, _: told.append((layer.digest, word)))
    assert shelf.order == [manifest.layers[1].digest, manifest.config.digest]
    assert (manifest.layers[0].digest, "there") in told
    assert (manifest.layers[1].digest, "done") in told


def test_a_layer_that_is_only_unpacked_here(store: Store) -> None:
    root = keep_for(store, HOST, "a")
    store.blob_path(documents.parse_manifest(store.blob(root.digest)).layers[0].digest).unlink()
    with pytest.raises(NotFound) as raised:
        send(store, root, Shelf())
    assert "pull or load the image anew" in str(raised.value.hint)


def test_it_is_broken_off(store: Store) -> None:
    root, cancel, shelf = keep_for(store, HOST, "a"), threading.Event(), Shelf()
    cancel.set()
    with pytest.raises(PycoreError, match="broken off"):
        send(store, root, shelf, cancel=cancel)
    assert (shelf.order, shelf.root) == ([], "")
    assert store.holds() == {}


def test_nobody_removes_it_meanwhile(store: Store) -> None:
    root = keep_for(store, HOST, "a")

    class Watching(Shelf):
        def put(self, descriptor: Descriptor, stream: Stream) -> None:
            assert [*store.holds().values()] == [{root.digest}]
            super().put(descriptor, stream)

    send(store, root, Watching())
    assert store.holds() == {}
