"""What goes from the store and what stays, also while others add to it."""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pycore.errors import NotFound
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel
from pycore.linux.look import Look
from pycore.linux.measure import measure
from pycore.ops import Context
from pycore_images import documents, keeping
from pycore_images.collecting import DAY, Collected, collect, prune, reach, unnamed, users
from pycore_images.content import CONFIG, LAYER, MANIFEST, Damaged, Descriptor
from pycore_images.fetching import fetch
from pycore_images.held import HeldImage
from pycore_images.registered import pycore_leftovers, store_of
from pycore_images.store import Store
from pycore_images.usage import layer_usage
from support.kept import KeptSource, archive, digest_of, keep, keep_index


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def is_whole(store: Store, root: Descriptor) -> bool:
    try:
        image = store.image(root)
        return all(store.has_blob(layer.digest) and store.has_layer(diff_id) for layer, diff_id in image.layers)
    except NotFound:
        return False


def test_an_empty_store_stays_none(store: Store) -> None:
    assert collect(store, 0) == Collected()
    assert prune(store) == ([], Collected())
    assert unnamed(store) == []
    assert not store.root.exists()


def test_what_has_no_name_goes_and_what_others_share_stays(store: Store) -> None:
    kept, gone = keep(store, "shared", "own"), keep(store, "shared", "other")
    store.tag("docker.io/library/kept:latest", kept)
    collected = collect(store, 0)
    assert collected.layers == (digest_of(archive("other")),)
    assert len(collected.blobs) == 3  # manifest, configuration, layer
    assert collected.bytes > 0
    assert is_whole(store, kept)
    assert not store.has_blob(gone.digest)
    assert os.listdir(store.ingest) == []
    assert collect(store, 0) == Collected()


def test_what_came_today_stays_for_a_day(store: Store) -> None:
    image = keep(store, "layer")
    assert collect(store) == Collected()
    old = time.time() - DAY - 60
    for place in (*(store.root / "blobs" / "sha256").iterdir(), *(store.root / "layers").iterdir()):
        os.utime(place, (old, old))
    assert len(collect(store).blobs) == 3
    assert not is_whole(store, image)


def test_what_is_held_stays_without_a_name(store: Store) -> None:
    image = keep(store, "layer")
    store.hold("0123456789ab", [image.digest])
    assert collect(store, 0) == Collected()
    assert prune(store) == ([], Collected())
    assert users(store, image) == ["0123456789ab"]
    store.release("0123456789ab")
    assert len(collect(store, 0).layers) == 1


def test_an_index_keeps_the_images_that_are_here(store: Store) -> None:
    image = keep(store, "layer")
    absent = Descriptor(MANIFEST, f"sha256:{'0' * 64}", 7)
    index = keep_index(store, image, absent)
    store.tag("docker.io/library/many:latest", index)
    assert collect(store, 0) == Collected()
    assert reach(store, [index.digest]).manifests == {image.digest}
    store.hold("0123456789ab", [image.digest])  # a container holds the one that it runs
    assert prune(store)[0] == []
    assert users(store, index) == ["0123456789ab"]


def test_prune_removes_names_that_nobody_uses(store: Store) -> None:
    used, idle = keep(store, "used"), keep(store, "idle")
    for name in ("a", "b"):
        store.tag(f"docker.io/library/{name}:latest", idle)
    store.tag("docker.io/library/used:latest", used)
    store.hold("0123456789ab", [used.digest])
    names, collected = prune(store)
    assert sorted(names) == ["docker.io/library/a:latest", "docker.io/library/b:latest"]
    assert len(collected.layers) == 1
    assert [*store.references()] == ["docker.io/library/used:latest"]


def test_images_without_a_name_are_found(store: Store) -> None:
    named, bare, within = keep(store, "a"), keep(store, "b"), keep(store, "c")
    index = keep_index(store, within)
    store.tag("docker.io/library/a:latest", named)
    store.add_blob(io.BytesIO(b"{ a layer that begins like a document"), LAYER)
    assert {root.digest for root in unnamed(store)} == {bare.digest, index.digest}


def test_only_content_of_one_image(store: Store) -> None:
    one, other = keep(store, "one"), keep(store, "other")
    collect(store, 0, among=reach(store, [one.digest]))
    assert not is_whole(store, one)
    assert is_whole(store, other)


def test_nothing_goes_while_it_is_unknown_what_a_name_leads_to(store: Store) -> None:
    image = keep(store, "layer")
    store.tag("docker.io/library/x:latest", image)
    keep(store, "bare")
    store.blob_path(image.digest).write_bytes(b"{}")
    with pytest.raises(Damaged):
        collect(store, 0)
    assert len(os.listdir(store.root / "layers")) == 2


def test_what_was_given_up_long_ago_is_swept(store: Store) -> None:
    store.prepare()
    old = time.time() - DAY - 60
    for name, when in {
        "a.part": old,
        "b.part": time.time(),
        "c.tree": old,
        "d.gone": time.time(),
        "e.part": old,
    }.items():
        place = store.ingest / name
        place.mkdir() if "tree" in name or "gone" in name else place.touch()
        os.utime(place, (when, when))
    with store.ingesting("e"):
        collect(store)
        assert sorted(os.listdir(store.ingest)) == ["b.part", "e.lock", "e.part"]


def test_who_died_while_passing_holds_nothing(store: Store, tmp_path: Path) -> None:
    image = keep(store, "layer")
    code = (
        "import os, sys; from pathlib import Path; from pycore_images.store import Store\n"
        "with Store(Path(sys.argv[1])).passing([sys.argv[2]]): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root), image.digest], check=True)
    assert len(os.listdir(store.root / "holds")) == 1
    with store.passing([image.digest]):
        assert collect(store, 0) == Collected()
        assert len(os.listdir(store.root / "holds")) == 1
    assert len(collect(store, 0).layers) == 1


_COLLECTOR = """
import sys
from pathlib import Path
from pycore_images.collecting import collect, prune
from pycore_images.fetching import fetch
from pycore_images.held import HeldImage
from pycore_images.registered import pycore_leftovers, store_of
from pycore_images.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    collect(store, 0)
    prune(store)
    print("round", flush=True)
"""


def test_nothing_that_is_held_goes_however_others_collect(store: Store) -> None:
    """Another process, and a thread, collect again and again while images come, are held, checked, and go."""
    store.prepare()
    done, found = threading.Event(), []

    def collecting() -> None:
        while not done.is_set():
            collect(store, 0)
            prune(store)

    def adding(number: int) -> None:
        for turn in range(25):
            root = _held_image(store, f"u{number}", "shared", f"layer-{number}-{turn % 3}")
            found.append(is_whole(store, root))
            store.release(f"u{number}")

    with subprocess.Popen(
        [sys.executable, "-c", _COLLECTOR, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        feeder = threading.Thread(target=_keep_busy, args=(other, done))
        threads = [threading.Thread(target=adding, args=(number,)) for number in range(3)]
        background = [feeder, threading.Thread(target=collecting)]
        for thread in (*threads, *background):
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        for thread in background:
            thread.join()
        other.stdin.close()
    assert len(found) == 75
    assert all(found)
    prune(store)
    assert os.listdir(store.root / "layers") == os.listdir(store.ingest) == []


def _keep_busy(other: subprocess.Popen[str], done: threading.Event) -> None:
    assert other.stdin
    assert other.stdout
    while not done.is_set():
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "round\n"


def _held_image(store: Store, user: str, *layers: str) -> Descriptor:
    """An image that comes in as a fetch brings one: its manifest is held before it is looked what is here."""
    blobs = [Descriptor(LAYER, digest_of(word.encode()), len(word)) for word in layers]
    config = documents.encode({
        "os": "linux", "architecture": documents.host_platform().architecture,
        "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob in blobs]},
    })  # fmt: skip
    manifest = documents.manifest_of(Descriptor(CONFIG, digest_of(config), len(config)), blobs)
    store.hold(user, [digest_of(manifest)])
    root = store.add_document(manifest, MANIFEST)
    store.add_document(config, CONFIG)
    for word, blob in zip(layers, blobs, strict=True):
        with store.ingesting(blob.hex):
            if not store.has_blob(blob.digest):
                store.add_blob(io.BytesIO(word.encode()), LAYER)
            if not store.has_layer(blob.digest):
                incoming = store.ingest / secrets.token_hex(8)
                (incoming / "tree").mkdir(parents=True)
                store.take_layer(incoming, blob.digest)
    return root


def test_space_is_looked_at_once(store: Store) -> None:
    image = keep(store, "layer")
    (diff_id,) = store.image(image).config.diff_ids
    usage = layer_usage(store, diff_id)
    assert usage == measure(str(store.layer_tree(diff_id)))
    assert usage.inodes == 2
    assert usage.bytes >= 25_000
    (store.layer_tree(diff_id) / "more").write_text("which never happens")
    assert layer_usage(store, diff_id) == usage


def test_the_supervisor_lets_go_of_old_content_when_nobody_asks_for_anything(store: Store) -> None:
    kept, gone = keep(store, "kept"), keep(store, "gone")
    store.tag("docker.io/library/kept:latest", kept)
    old = time.time() - DAY - 60
    for place in (*(store.root / "blobs" / "sha256").iterdir(), *(store.root / "layers").iterdir()):
        os.utime(place, (old, old))
    keeping.pycore_idle(Host(Look(), store.root.parent / "run", store.root.parent))
    assert is_whole(store, kept)
    assert not store.has_blob(gone.digest)


def test_a_fetch_loses_nothing_to_who_collects_after_each_of_its_steps(store: Store, tmp_path: Path) -> None:
    class Eroding(Store):
        def add_document(self, data: bytes, media_type: str) -> Descriptor:
            found = super().add_document(data, media_type)
            collect(self, 0)
            prune(self)
            return found

    origin = Store(tmp_path / "origin")
    image = keep(origin, "a", "b")
    root = keep_index(origin, image)
    fetch(
        Eroding(store.root),
        KeptSource(origin, root),
        progress=lambda _layer, _word, _done: prune(store) and None,
    )
    store.tag("docker.io/library/x:latest", root)
    assert is_whole(store, root)


def test_holds_of_containers_that_are_none_any_more_are_let_go_of(tmp_path: Path) -> None:
    host = Host(Look(), tmp_path / "run", tmp_path)
    store = store_of(host)
    root = keep(store, "a")
    known, there, gone = "0123456789ab", "a" * 12, "b" * 12
    (tmp_path / "containers" / there).mkdir(parents=True)
    for user in (known, there, gone, "somebody-else"):
        store.hold(user, [root.digest])
    operation = HeldImage(str(store.root), "x", root.digest, known)
    left = [*pycore_leftovers(host, [operation])]
    assert [each.user for each in left if isinstance(each, HeldImage)] == [gone]
    for each in left:
        each.undo(Context(Kernel()))
    assert set(store.holds()) == {known, there, "somebody-else"}
