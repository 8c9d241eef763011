"""Large layers unpacked by a process of their own: the same comes of them, whatever goes wrong."""

from __future__ import annotations

import gzip
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore_images import fetching
from pycore_images.content import Damaged
from pycore_images.fetching import fetch
from pycore_images.recipe import remade
from pycore_images.store import Store
from pycore_images.unpacker import Unpacker
from support.layered import MadeImage, digest, entry, tar

pytestmark = pytest.mark.root

DATA = tar(entry("d"), entry("d/\udcff", os.urandom(3 << 20), mode=0o4755, uid=7), entry("x", b"y"))


def _all_children() -> list[str]:
    return Path("/proc/thread-self/children").read_text().split()


_OTHERS: list[str] = []
"""Children that tests of other things have left to this process."""


@pytest.fixture(autouse=True)
def others() -> None:
    _OTHERS[:] = _all_children()


def children() -> list[str]:
    return [each for each in _all_children() if each not in _OTHERS]


def unpacked(tree: Path, data: bytes, recipe: Path | None = None) -> str:
    with Unpacker(tree, recipe) as unpacking:
        for place in range(0, len(data), 1 << 20):
            unpacking.feed(data[place : place + (1 << 20)])
        return unpacking.finish(digest(data))


@pytest.mark.parametrize("data", [DATA, gzip.compress(DATA)])
def test_a_layer(tmp_path: Path, data: bytes) -> None:
    assert unpacked(tmp_path / "tree", data) == digest(DATA)
    found = (tmp_path / "tree" / "d" / "\udcff").stat()
    assert (found.st_size, found.st_mode & 0o7777, found.st_uid) == (3 << 20, 0o4755, 7)
    assert children() == []


def test_a_recipe(tmp_path: Path) -> None:
    unpacked(tmp_path / "tree", DATA, tmp_path / "recipe")
    assert b"".join(remade(tmp_path / "recipe", tmp_path / "tree")) == DATA


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"x" * (3 << 20), Damaged, "no sound tar archive"),
        (gzip.compress(DATA)[:-1000], Damaged, "cannot be decompressed"),
        (tar(entry("f", b""), entry("f/g", b"")), OSError, "Not a directory"),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(
    tmp_path: Path, data: bytes, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        unpacked(tmp_path / "tree", data)
    assert os.listdir(tmp_path) == []
    assert children() == []


def test_one_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    def give_up() -> None:
        with Unpacker(tmp_path / "tree") as unpacking:
            unpacking.feed(DATA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert os.listdir(tmp_path) == []
    assert children() == []


def test_one_that_is_killed(tmp_path: Path) -> None:
    def go_on() -> None:
        with Unpacker(tmp_path / "tree") as unpacking:
            os.kill(int(children()[0]), signal.SIGKILL)
            while True:
                unpacking.feed(DATA)

    with pytest.raises(PycoreError, match="has been killed"):
        go_on()
    assert os.listdir(tmp_path) == []
    assert children() == []


_ABANDONING = """
import sys; from pathlib import Path; from pycore_images.unpacker import Unpacker
with Unpacker(Path(sys.argv[1])) as unpacking:
    print(Path("/proc/thread-self/children").read_text(), flush=True)
    sys.stdin.read()
"""


def test_it_dies_with_whoever_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ABANDONING, str(tmp_path / "tree")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        pidfd = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        assert selector.select(60)
    os.close(pidfd)


def test_one_that_does_not_even_begin(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpacked(tmp_path / "missing" / "tree", DATA)
    assert children() == []


def test_large_layers_come_into_the_store_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_LARGE", 1000)
    store = Store(tmp_path)
    image = MadeImage([DATA, tar(entry("other", os.urandom(2000))), tar()])
    trees = store.layer_trees(fetch(store, image))
    assert [sorted(os.listdir(tree)) for tree in trees] == [[], ["other"], ["d", "x"]]
    assert os.listdir(store.ingest) == []
    assert children() == []
