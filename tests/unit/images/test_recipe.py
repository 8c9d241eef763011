"""Plain layers that are kept once: made again byte for byte, and never anything else for them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycore.linux import rmtree
from pycore_images.collecting import prune
from pycore_images.content import LAYER, Damaged
from pycore_images.fetching import fetch
from pycore_images.layers import Unpacking
from pycore_images.recipe import remade
from pycore_images.store import Store
from pycore_images.usage import layer_usage
from support.layered import MadeImage, digest, entry, tar

pytestmark = pytest.mark.root

LONG = os.urandom(3 << 20)


def unpacked(directory: Path, data: bytes, piece: int = 100_000) -> bool:
    """Whether there is a recipe in the end."""
    with Unpacking(directory / "tree", directory / "recipe") as unpacking:
        for place in range(0, len(data), piece):
            unpacking.feed(data[place : place + piece])
        unpacking.finish(digest(data))
    return (directory / "recipe").exists()


def again(directory: Path) -> bytes:
    return b"".join(remade(directory / "recipe", directory / "tree"))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece", [511, 1 << 20])
def test_byte_for_byte(tmp_path: Path, form: int, piece: int) -> None:
    data = tar(
        entry("d"), entry("d/small", b"x"), entry("d/middle", b"y" * 5000, uid=7), entry("holes", bytes(200_000)),
        entry("to", type=tarfile.SYMTYPE, linkname="/d"), entry("to/through", b"z" * 600),
        entry("same", type=tarfile.LNKTYPE, linkname="d/middle"), entry("./odd//name", b"o" * 512),
        entry("d/.wh.gone", b"w" * 3000), entry("empty", b""), entry(".", b"n" * 2000), form=form,
    ) + b"what nobody reads" * 100  # fmt: skip
    assert unpacked(tmp_path, data, piece)
    assert again(tmp_path) == data


def test_content_is_not_there_twice(tmp_path: Path) -> None:
    data = tar(entry("long", LONG), entry("\udcff", LONG))
    assert unpacked(tmp_path, data)
    assert again(tmp_path) == data
    assert (tmp_path / "recipe").stat().st_size < 2000


def test_no_header_after_all(tmp_path: Path) -> None:
    assert unpacked(tmp_path, b"")
    assert again(tmp_path) == b""


@pytest.mark.parametrize(
    "entries",
    [
        [entry("a", b"x" * 5000), entry("a", b"y" * 5000)],
        [entry("a", b"x" * 5000), entry("a")],
        [entry("d"), entry("to", type=tarfile.SYMTYPE, linkname="d"), entry("to/a", b"x" * 5000), entry("to")],
    ],
)
def test_what_replaces_its_own_files_has_none(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes | None]]
) -> None:
    assert not unpacked(tmp_path, tar(*entries))


def _link(name: str) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, type=tarfile.SYMTYPE, linkname="d")


def _hard_link(name: str) -> tuple[tarfile.TarInfo, bytes | None]:
    return entry(name, type=tarfile.LNKTYPE, linkname="a")


_NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/e/f", "to/a", ".wh.a", "d/.wh..wh..opq", "."])
_ENTRIES = st.one_of(
    st.builds(entry, _NAMES, st.sampled_from([b"", b"x", b"y" * 512, b"z" * 70_000, bytes(9000)])),
    st.builds(entry, _NAMES),
    st.builds(_link, st.sampled_from(["to", "d", "a"])),
    st.builds(_hard_link, _NAMES),
)


@settings(deadline=None)
@given(entries=st.lists(_ENTRIES, max_size=8))
def test_it_holds_or_is_not_there(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[tarfile.TarInfo, bytes | None]]
) -> None:
    directory = tmp_path_factory.mktemp("any")
    data = tar(*entries)
    try:
        assert not unpacked(directory, data) or again(directory) == data
    except (Damaged, OSError):
        pass  # not unpacked: links to what is not there
    finally:
        rmtree.remove(str(directory))


# -- in the store --------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def at_hand(*entries: tuple[tarfile.TarInfo, bytes | None]) -> MadeImage:
    image = MadeImage([tar(*entries)], bytes, LAYER)
    image.at_hand = True
    return image


def content(store: Store, digest: str) -> bytes:
    with open(store.open_blob(digest), "rb") as file:
        return file.read()


def test_a_plain_layer_is_kept_once(store: Store) -> None:
    image = at_hand(entry("long", LONG))
    fetch(store, image)
    layer = image.layers[0].digest
    assert store.has_blob(layer)
    assert not store.blob_path(layer).exists()
    assert content(store, layer) == image.content[layer]
    assert layer_usage(store, layer).inodes == 3
    assert os.listdir(store.ingest) == []
    fetch(store, image)
    assert len(image.asked) == 1
    prune(store)
    assert not store.has_blob(layer)


def test_one_that_replaces_its_own_files_is_kept_as_it_came(store: Store) -> None:
    image = at_hand(entry("a", LONG), entry("a", b"x" * 5000))
    fetch(store, image)
    layer = image.layers[0].digest
    assert store.blob_path(layer).read_bytes() == image.content[layer]
    assert (store.layer_tree(layer) / "a").read_bytes() == b"x" * 5000


def test_one_that_may_not_come_again_is_kept_as_it_came(store: Store) -> None:
    image = at_hand(entry("a", LONG))
    image.at_hand = False
    fetch(store, image)
    assert store.blob_path(image.layers[0].digest).exists()


@pytest.mark.parametrize("how", ["changed", "shorter", "removed", "another kind", "recipe", "recipe cut"])
def test_a_layer_that_has_been_changed_is_given_to_nobody(store: Store, how: str) -> None:
    image = at_hand(entry("a", LONG))
    fetch(store, image)
    layer = image.layers[0].digest
    file, recipe = store.layer_tree(layer) / "a", store.recipe(layer)
    if how == "changed":
        file.write_bytes(bytes(len(LONG)))
    elif how == "shorter":
        os.truncate(file, 5)
    elif how in ("removed", "another kind"):
        file.unlink()
        if how == "another kind":
            os.mkfifo(file)
    else:
        data = recipe.read_bytes()
        recipe.write_bytes(data[: len(data) // 2] + (b"" if how == "recipe cut" else b"?" * 20))
    with pytest.raises(Damaged, match=f"layer {layer} has been changed in the store since it was unpacked"):
        store.open_blob(layer)
    assert os.listdir(store.ingest) == []


def test_a_layer_that_is_not_what_it_should_be_leaves_nothing(store: Store) -> None:
    image = at_hand(entry("a", LONG))
    layer = image.layers[0].digest
    image.content[layer] = image.content[layer].replace(LONG[:100], bytes(100))
    with pytest.raises(Damaged, match="not what its digest says"):
        fetch(store, image)
    assert not store.has_blob(layer)
    assert os.listdir(store.ingest) == os.listdir(store.root / "layers") == []
