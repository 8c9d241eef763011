"""Images brought into the store: through lines that break, beside others who bring the same, and what may not."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pycore.errors import NotFound, PycoreError
from pycore_images import documents, fetching
from pycore_images.collecting import prune
from pycore_images.content import LAYER, Damaged, Descriptor, Stream
from pycore_images.fetching import fetch, look
from pycore_images.store import Store
from support.clock import Clock
from support.layered import MadeImage, digest, entry, tar

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_DELAY", 0.001)
    monkeypatch.setattr(fetching, "_TOLD", 0)


@pytest.fixture
def image() -> MadeImage:
    return MadeImage([tar(entry("a", b"lower")), tar(entry("b", random.Random(0).randbytes(3 << 20)))])


class Told:
    """What a fetch has told."""

    def __init__(self) -> None:
        self.words: dict[str, list[str]] = {}
        self.lock = threading.Lock()

    def __call__(self, layer: Descriptor, word: str, done: int) -> None:
        assert 0 <= done <= layer.size
        with self.lock:
            words = self.words.setdefault(layer.digest, [])
            if not words or words[-1] != word:
                words.append(word)


def nothing_left(store: Store) -> None:
    """Of what was under way."""
    assert os.listdir(store.ingest) == []
    assert store.holds() == {}


def nothing_stays(store: Store) -> None:
    """Of an image that is not sound."""
    nothing_left(store)
    assert os.listdir(store.root / "blobs/sha256") == os.listdir(store.root / "layers") == []


def test_an_image(store: Store, image: MadeImage) -> None:
    told = Told()
    made = fetch(store, image, progress=told)
    assert made == look(image) == store.image(image.manifest)
    assert [tree.joinpath(name).exists() for tree, name in zip(store.layer_trees(made), "ba", strict=True)] == [
        True,
        True,
    ]
    assert all(store.has_blob(layer.digest) for layer in image.layers)
    assert all(words[0] == "waiting" and words[-1] == "done" for words in told.words.values())
    nothing_left(store)


def test_it_is_named_before_anybody_can_collect_it(store: Store, image: MadeImage) -> None:
    def name(made: documents.Image) -> None:
        prune(store)
        store.tag("x", made.root)

    fetch(store, image, taken=name)
    assert store.resolve("x") == image.manifest
    store.layer_trees(store.image(image.manifest))
    nothing_left(store)


def test_looking_keeps_nothing(tmp_path: Path, image: MadeImage) -> None:
    assert look(image).digest == image.manifest.digest
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_not_fetched(store: Store, image: MadeImage) -> None:
    fetch(store, image)
    again = MadeImage([tar(entry("a", b"lower")), tar(entry("c", b"other"))])
    told = Told()
    fetch(store, again, progress=told)
    assert [layer for layer, _ in again.asked] == [again.layers[1]]
    assert told.words[again.layers[0].digest] == ["waiting", "there"]


def test_a_layer_that_is_there_twice(store: Store) -> None:
    image = MadeImage([tar(entry("a", b"x"))] * 3)
    assert len(store.layer_trees(fetch(store, image))) == 3
    assert len(image.asked) == 1


@pytest.mark.parametrize("lost", ["tree", "blob"])
def test_what_has_been_lost_is_made_anew(store: Store, image: MadeImage, lost: str) -> None:
    made = fetch(store, image)
    place = store.layer_tree(image.diff_ids[0]).parent if lost == "tree" else store.blob_path(image.layers[0].digest)
    place.rename(store.root / "lost")
    fetch(store, image)
    assert (store.layer_trees(made)[1] / "a").read_text() == "lower"
    assert store.has_blob(image.layers[0].digest)
    assert len(image.asked) == (2 if lost == "tree" else 3)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_compressed_or_not(store: Store, compress: Callable[[bytes], bytes]) -> None:
    made = fetch(store, MadeImage([tar(entry("a", b"x"))], compress, LAYER))
    assert (store.layer_trees(made)[0] / "a").read_text() == "x"
    nothing_left(store)


# -- lines that break ----------------------------------------------------------------------------------------


class Breaking(MadeImage):
    """Gives so many bytes at a time, and then breaks off."""

    most = 1 << 20
    how: Callable[[], BaseException] | None = ConnectionResetError

    def stream(self, descriptor: Descriptor, offset: int) -> Stream:
        outer, left = self, self.most
        whole = io.BytesIO(self.content[descriptor.digest][offset:])

        class Cut:
            def read(self, size: int, /) -> bytes:
                nonlocal left
                if not left and outer.how is not None:
                    raise outer.how()
                data = whole.read(min(size, left))
                left -= len(data)
                return data

        return Cut()


@pytest.mark.parametrize("how", [ConnectionResetError, TimeoutError, None])
def test_it_is_gone_on_with_from_where_it_broke_off(store: Store, how: type[OSError] | None) -> None:
    image = Breaking([tar(entry("a", random.Random(1).randbytes(3 << 20)))])
    image.how = how
    told = Told()
    fetch(store, image, progress=told)
    assert [offset for _, offset in image.asked] == [0, 1 << 20, 2 << 20, 3 << 20]
    assert "retrying" in told.words[image.layers[0].digest]
    nothing_left(store)


def test_it_breaks_off_again_and_again(store: Store) -> None:
    image = Breaking([tar(entry("a", random.Random(1).randbytes(3 << 20)))])
    image.most = 0
    with pytest.raises(PycoreError, match="breaks off again and again") as caught:
        fetch(store, image)
    assert image.layers[0].digest[:19] in caught.value.message
    assert len(image.asked) == 5


def test_each_wait_is_longer_than_the_one_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_DELAY", 1.0)
    monkeypatch.setattr(fetching, "_LONGEST", 3.0)
    image = Breaking([tar(entry("a", b"x"))])
    image.most = 0
    clock = Clock()
    with pytest.raises(PycoreError, match="breaks off again and again"):
        fetch(store, image, cancel=clock)
    assert clock.waited_between((0.5, 1), (1, 2), (1.5, 3), (1.5, 3))


def test_somebody_else_goes_on(store: Store) -> None:
    """After an error that ended it, and after a crash: what is there is not asked for again."""
    image = Breaking([tar(entry("a", random.Random(1).randbytes(3 << 20)))])
    image.how = lambda: PycoreError("denied")
    with pytest.raises(PycoreError, match="denied"):
        fetch(store, image)
    assert [name.partition(".")[2] for name in os.listdir(store.ingest)] == ["part"]
    image.most = 10 << 20
    fetch(store, image)
    assert [offset for _, offset in image.asked] == [0, 1 << 20]
    nothing_left(store)


def test_what_a_crash_has_left_is_not_what_it_should_be(store: Store, image: MadeImage) -> None:
    store.prepare()
    layer = image.layers[1]
    (store.ingest / f"{layer.hex}.part").write_bytes(bytes(5000))
    (store.ingest / f"{image.diff_ids[1][7:]}.1234.tree" / "tree").mkdir(parents=True)
    fetch(store, image)
    assert sorted(offset for _, offset in image.asked) == [0, 0, 5000] or len(image.asked) == 2
    nothing_left(store)


def test_a_part_that_is_too_long(store: Store, image: MadeImage) -> None:
    store.prepare()
    (store.ingest / f"{image.layers[0].hex}.part").write_bytes(bytes(100_000))
    fetch(store, image)
    nothing_left(store)


def test_killed_in_the_middle(store: Store) -> None:
    """kill -9 at any point leaves a store that is whole, and the next fetch ends what was begun."""
    code = """
import os, random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pycore_images.fetching import fetch
from pycore_images.store import Store
from support.layered import MadeImage, entry, tar
import threading
image = MadeImage([tar(entry("a", random.Random(1).randbytes(3 << 20))), tar(entry("b", b"x"))], bytes)
left = int(sys.argv[3])
def die(layer, word, done):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
import pycore_images.fetching as fetching
fetching._TOLD = 0
fetch(Store(Path(sys.argv[1])), image, progress=die, jobs=1)
"""
    support = str(Path(__file__).parents[2])
    image = MadeImage([tar(entry("a", random.Random(1).randbytes(3 << 20))), tar(entry("b", b"x"))], bytes)
    for count in range(12):
        done = subprocess.run([sys.executable, "-c", code, str(store.root), support, str(count)], check=False)
        for name in os.listdir(store.root / "layers"):
            assert (store.layer_tree(f"sha256:{name}")).exists()
        for name in os.listdir(store.root / "blobs" / "sha256"):
            assert digest((store.root / "blobs" / "sha256" / name).read_bytes()) == f"sha256:{name}"
        if done.returncode == 0:
            break
        assert done.returncode == -9
    fetch(store, image)
    assert [name for name in os.listdir(store.ingest) if not name.endswith(".lock")] == []
    assert store.holds() == {}


# -- what may not come in ------------------------------------------------------------------------------------


def test_a_wrong_digest(store: Store, image: MadeImage) -> None:
    image.content[image.layers[0].digest] = image.content[image.layers[0].digest][:-1] + b"\1"
    with pytest.raises(Damaged, match="layer sha256:"):
        fetch(store, image)
    nothing_stays(store)
    assert not store.has_blob(image.layers[0].digest)
    assert not store.has_layer(image.diff_ids[0])


def test_content_of_the_same_length_that_is_another(store: Store, image: MadeImage) -> None:
    other = gzip.compress(tar(entry("a", b"other")))
    image.content[image.layers[0].digest] = other.ljust(image.layers[0].size, b"\0")[: image.layers[0].size]
    with pytest.raises(Damaged):
        fetch(store, image)
    nothing_stays(store)


def test_it_is_longer_than_it_should_be(store: Store, image: MadeImage) -> None:
    image.content[image.layers[0].digest] += bytes(5000)
    with pytest.raises(Damaged, match="longer than"):
        fetch(store, image)
    nothing_stays(store)


@pytest.mark.parametrize(
    "bad",
    [
        tar(entry("../x", b"")),
        tar(entry("x" * 5000, b"")),
        tar(entry("f", b""), entry("f/x", b"")),
        tar(entry("l", type=tarfile.SYMTYPE, linkname="l"), entry("l/x", b"")),
        entry("huge", b"", size=1 << 40)[0].tobuf(tarfile.GNU_FORMAT),
        b"no archive",
    ],
)
def test_a_layer_that_is_not_sound(store: Store, bad: bytes) -> None:
    """What is sound of the image goes with it; what another one has, stays."""
    shared, own = tar(entry("a", b"x")), tar(entry("b", b"x"))
    fetch(store, other := MadeImage([shared]), taken=lambda image: store.tag("localhost/other:1", image.root))
    kept = set(store.root.glob("*/*/*"))
    with pytest.raises(Damaged, match="layer sha256:"):
        fetch(store, MadeImage([shared, own, bad]))
    assert set(store.root.glob("*/*/*")) == kept
    assert store.layer_trees(store.image(other.root()))
    assert store.holds() == {}


def test_another_diff_id(store: Store) -> None:
    image = MadeImage([tar(entry("a", b"x"))], config={"rootfs": {"type": "layers", "diff_ids": [digest(b"other")]}})
    with pytest.raises(Damaged, match="not what the configuration says"):
        fetch(store, image)
    nothing_stays(store)


def test_layers_that_name_each_other(store: Store) -> None:
    """Each is to be what the other is unpacked: two who wait for each other would wait for ever."""
    one, two = tar(entry("a", b"x")), tar(entry("b", b"x"))
    diff_ids = {"rootfs": {"type": "layers", "diff_ids": [digest(two), digest(one)]}}
    with pytest.raises(Damaged, match="not what the configuration says"):
        fetch(store, MadeImage([one, two], bytes, LAYER, config=diff_ids))
    nothing_stays(store)


def test_documents_that_are_not_what_their_digests_say(store: Store, image: MadeImage) -> None:
    for descriptor in (image.config, image.manifest):
        right = image.content[descriptor.digest]
        image.content[descriptor.digest] = right.replace(b"linux", b"Linux") + b" "
        with pytest.raises(Damaged, match="not what its digest says"):
            fetch(store, image)
        image.content[descriptor.digest] = right
    assert not store.root.exists()


def test_a_manifest_that_leads_to_itself(store: Store, image: MadeImage) -> None:
    """By a source that gives the same index for whatever it is asked."""
    inner = documents.describe(image.manifest)
    for _ in range(6):
        index = documents.encode({"schemaVersion": 2, "manifests": [inner]})
        added = image.add(index, "application/vnd.oci.image.index.v1+json")
        inner = documents.describe(added)
    image.manifest = added
    with pytest.raises(Damaged, match="indexes within indexes"):
        fetch(store, image)


def test_another_platform(store: Store, image: MadeImage) -> None:
    with pytest.raises(NotFound, match="not there for linux/s390x") as caught:
        fetch(store, image, platform=documents.Platform("linux", "s390x"))
    assert caught.value.hint == "there is linux/amd64"


def test_one_layer_is_bad_and_the_others_end(store: Store) -> None:
    image = MadeImage([tar(entry("a", b"x")), gzip.compress(b"no tar"), *(tar(entry(str(n), b"")) for n in range(10))])
    with pytest.raises(Damaged, match="no sound tar"):
        fetch(store, image)
    nothing_left(store)


# -- beside others -------------------------------------------------------------------------------------------


class Held(MadeImage):
    """Gives the rest of its layers when it is let go."""

    def __init__(self, *tars: bytes) -> None:
        super().__init__(tars, bytes, LAYER)
        self.asked_for, self.go = threading.Event(), threading.Event()

    def stream(self, descriptor: Descriptor, offset: int) -> Stream:
        whole = io.BytesIO(self.content[descriptor.digest][offset:])
        outer = self

        class Slow:
            def read(self, size: int, /) -> bytes:
                outer.asked_for.set()
                outer.go.wait(30)
                return whole.read(min(size, 1000))

        return Slow()


def test_several_layers_come_at_once(store: Store) -> None:
    together = threading.Barrier(3)

    class Together(MadeImage):
        def stream(self, descriptor: Descriptor, offset: int) -> Stream:
            together.wait(30)
            return super().stream(descriptor, offset)

    fetch(store, Together([tar(entry(str(number), b"x")) for number in range(3)]), jobs=3)
    nothing_left(store)


def test_two_want_the_same(store: Store) -> None:
    one, two = Held(tar(entry("a", b"x" * 5000))), Held(tar(entry("a", b"x" * 5000)))
    two.go.set()
    threads = [threading.Thread(target=fetch, args=(Store(store.root), each)) for each in (one, two)]
    threads[0].start()
    assert one.asked_for.wait(30)
    threads[1].start()
    one.go.set()
    for thread in threads:
        thread.join()
    assert (len(one.asked), len(two.asked)) == (1, 0)
    nothing_left(store)


def test_it_is_broken_off(store: Store) -> None:
    image, cancel = Held(tar(entry("a", b"x" * 50_000))), threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fetch(store, image, cancel=cancel)
        except PycoreError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert image.asked_for.wait(30)
    cancel.set()
    image.go.set()
    thread.join()
    assert [str(error) for error in errors] == ["broken off"]
    assert [name for name in os.listdir(store.ingest) if not name.endswith(".part")] == []


def test_who_waits_for_another_is_broken_off(store: Store) -> None:
    image, other, cancel = Held(tar(entry("a", b"x"))), Held(tar(entry("a", b"x"))), threading.Event()
    thread = threading.Thread(target=fetch, args=(store, image))
    thread.start()
    assert image.asked_for.wait(30)
    cancel.set()
    with pytest.raises(PycoreError, match="broken off"):
        fetch(Store(store.root), other, cancel=cancel)
    image.go.set()
    thread.join()
    assert other.asked == []
    nothing_left(store)


def test_what_the_progress_raises_ends_it(store: Store, image: MadeImage) -> None:
    def nobody(_layer: Descriptor, word: str, _done: int) -> None:
        if word == "downloading":
            raise PycoreError("nobody waits any more")

    with pytest.raises(PycoreError, match="nobody waits any more"):
        fetch(store, image, progress=nobody)
    assert [name for name in os.listdir(store.ingest) if not name.endswith(".part")] == []
