"""Archives and layouts: what is found in them, whatever form they have, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycore.errors import Conflict, NotFound, PycoreError
from pycore_images import documents, fetching
from pycore_images.archives import opening, targets
from pycore_images.archives.found import Found
from pycore_images.archives.targets import Target
from pycore_images.archives.writing import Writer
from pycore_images.content import (
    CONFIG,
    DOCKER_LAYER,
    INDEX,
    LAYER,
    MANIFEST,
    MAX_DOCUMENT,
    Damaged,
    Descriptor,
)
from pycore_images.sending import send
from pycore_images.store import Store
from support.images import read_all

Files = Mapping[str, bytes | tuple[bytes, str]]
"""What is in an archive: content, or a tar type and where a link leads."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def a_layer(name: str = "a", size: int = 5000) -> bytes:
    """A plain tar."""
    return a_tar({name: random.Random(name).randbytes(size)})


def a_tar(files: Files, **fields: Any) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(member, key, value)
            if isinstance(content, tuple):
                member.type, member.linkname = content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return whole.getvalue()


def a_config(*layers: bytes, **more: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest(each) for each in layers]}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs} | more).encode()


def docker_files(*layers: bytes, tags: Any = ("nginx:1", "nginx:2"), **more: Any) -> dict[str, Any]:
    config = a_config(*layers)
    places = [f"{digest(each)[7:]}.tar" for each in layers]
    name = f"{digest(config)[7:]}.json"
    entry = {"Config": name, "RepoTags": tags and list(tags), "Layers": places} | more
    manifest = json.dumps([entry]).encode()
    return {**dict(zip(places, layers, strict=True)), name: config, "manifest.json": manifest}


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digest(data)[7:]}"


def layout_files(*layers: bytes, **annotations: str) -> dict[str, bytes]:
    config = a_config(*layers)
    parts = [Descriptor(LAYER, digest(each), len(each)) for each in layers]
    manifest = documents.manifest_of(Descriptor(CONFIG, digest(config), len(config)), parts)
    entry: dict[str, Any] = {"mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest)}
    entry["annotations"] = {key.replace("_", "."): value for key, value in annotations.items()}
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{blob(each): each for each in (*layers, config, manifest)},
    }


def written(path: Path, files: Files, pack: Callable[[bytes], bytes] = bytes) -> str:
    path.write_bytes(pack(a_tar(files)))
    return str(path)


def unpacked(path: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


def whole(found: Found) -> tuple[bytes, list[bytes]]:
    """The configuration and the layers of an image, each verified."""
    source = found.source
    manifest = documents.parse_manifest(documents.check_document(source.document(source.root()), source.root(), "it"))
    layers = [read_all(source, layer) for layer in manifest.layers]
    assert [digest(each) for each in layers] == [layer.digest for layer in manifest.layers]
    config = documents.check_document(source.document(manifest.config), manifest.config, "it")
    documents.parse_config(config, len(layers))
    return config, layers


LAYERS = (a_layer("a"), a_layer("b"), a_layer("c"))
NAMES = ("docker.io/library/nginx:1", "docker.io/library/nginx:2")
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress,
}  # fmt: skip


# -- what docker save writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKED)
def test_docker_archive(store: Store, tmp_path: Path, pack: str) -> None:
    path = written(tmp_path / "archive", docker_files(*LAYERS), PACKED[pack])
    with opening.opened(store, path) as [image]:
        assert image.names == NAMES
        assert whole(image) == (a_config(*LAYERS), list(LAYERS))
    with open(path, "rb") as file, opening.streamed(store, file.fileno()) as [image]:
        assert whole(image)[1] == list(LAYERS)
    assert not store.ingest.exists() or os.listdir(store.ingest) == []


def test_a_pipe(store: Store) -> None:
    read, write = os.pipe()
    data = a_tar(docker_files(a_layer(size=300_000)))

    def feed() -> None:
        with open(write, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with opening.streamed(store, read) as [image]:
            assert whole(image)[1] == [a_layer(size=300_000)]
    finally:
        thread.join()
        os.close(read)
    assert os.listdir(store.ingest) == []


def test_several_images_share_layers(store: Store, tmp_path: Path) -> None:
    first, second = docker_files(*LAYERS[:2], tags=["a:1"]), docker_files(*LAYERS, tags=["b:1"])
    entries = [*json.loads(first["manifest.json"]), *json.loads(second["manifest.json"])]
    files = first | second | {"manifest.json": json.dumps(entries).encode()}
    with opening.opened(store, written(tmp_path / "archive", files)) as found:
        assert [each.names for each in found] == [("docker.io/library/a:1",), ("docker.io/library/b:1",)]
        assert [len(whole(each)[1]) for each in found] == [2, 3]


def test_an_image_without_a_name(store: Store, tmp_path: Path) -> None:
    with opening.opened(store, written(tmp_path / "archive", docker_files(*LAYERS, tags=None))) as [image]:
        assert image.names == ()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_layers_that_are_links_to_each_other(store: Store, tmp_path: Path, kind: bytes) -> None:
    layer = LAYERS[0]
    config = a_config(layer, layer)
    link = "../one/layer.tar" if kind == tarfile.SYMTYPE else "one/layer.tar"
    entry = {"Config": "c.json", "RepoTags": [], "Layers": ["one/layer.tar", "two/layer.tar"]}
    files = {
        "one/layer.tar": layer, "two/layer.tar": (kind, link), "c.json": config,
        "manifest.json": json.dumps([entry]).encode(),
    }  # fmt: skip
    with opening.opened(store, written(tmp_path / "archive", files)) as [image]:
        assert whole(image)[1] == [layer, layer]


def test_compressed_layers(store: Store, tmp_path: Path) -> None:
    plain, packed = a_layer(), gzip.compress(a_layer())
    entry = {"Config": "c.json", "RepoTags": [], "Layers": ["l.tar"]}
    files = {"c.json": a_config(plain), "l.tar": packed, "manifest.json": json.dumps([entry]).encode()}
    with opening.opened(store, written(tmp_path / "archive", files)) as [image]:
        assert whole(image)[1] == [packed]
        manifest = documents.parse_manifest(image.source.document(image.source.root()))
        assert manifest.layers[0].media_type == f"{DOCKER_LAYER}.gzip"


def test_before_manifest_json(store: Store, tmp_path: Path) -> None:
    below = {"id": "one", "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["ADD", "x"]}, "os": "linux"}
    above = {"id": "two", "parent": "one", "config": {"Cmd": ["sh"]}, "architecture": "amd64", "os": "linux"}
    files = {
        "one/json": json.dumps(below).encode(), "one/layer.tar": LAYERS[0], "one/VERSION": b"1.0",
        "two/json": json.dumps(above).encode(), "two/layer.tar": LAYERS[1],
        "repositories": json.dumps({"old": {"latest": "two", "1": "two"}}).encode(),
    }  # fmt: skip
    with opening.opened(store, written(tmp_path / "archive", files)) as [image]:
        assert image.names == ("docker.io/library/old:latest", "docker.io/library/old:1")
        config, layers = whole(image)
    assert layers == list(LAYERS[:2])
    assert documents.parse_config(config).run.command == ("sh",)
    assert [step.created_by for step in documents.parse_config(config).history] == ["ADD x", ""]


# -- layouts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
def test_layout(store: Store, tmp_path: Path, archived: bool) -> None:
    files = layout_files(*LAYERS, org_opencontainers_image_ref_name="localhost:5000/x:1")
    path = written(tmp_path / "lay", files) if archived else unpacked(tmp_path / "lay", files)
    with opening.opened(store, path) as [image]:
        assert image.names == ("localhost:5000/x:1",)
        assert whole(image)[1] == list(LAYERS)
        layer = documents.parse_manifest(image.source.document(image.source.root())).layers[0]
        assert read_all(image.source, layer, offset=4000) == LAYERS[0][4000:]
    assert not store.root.exists(), "what lies in a file is read where it lies"


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"org_opencontainers_image_ref_name": "1.27"}, ()),
        ({"io_containerd_image_name": "docker.io/library/x:2", "org_opencontainers_image_ref_name": "2"},
         ("docker.io/library/x:2",)),
        ({}, ()),
    ],
)  # fmt: skip
def test_names_in_a_layout(store: Store, tmp_path: Path, annotations: dict[str, str], name: tuple[str, ...]) -> None:
    with opening.opened(store, unpacked(tmp_path / "lay", layout_files(*LAYERS, **annotations))) as [image]:
        assert image.names == name


def test_names_that_only_manifest_json_has(store: Store, tmp_path: Path) -> None:
    files = layout_files(*LAYERS)
    entry = {"Config": blob(a_config(*LAYERS)), "RepoTags": ["nginx:1"], "Layers": [blob(each) for each in LAYERS]}
    files["manifest.json"] = json.dumps([entry]).encode()
    with opening.opened(store, written(tmp_path / "archive", files)) as [image]:
        assert image.names == ("docker.io/library/nginx:1",)
        assert image.source.root().media_type == MANIFEST
    del files["index.json"]
    with opening.opened(store, written(tmp_path / "archive", files)) as [image]:
        assert whole(image)[1] == list(LAYERS)


def test_what_is_no_image_for_running_is_left_out(store: Store, tmp_path: Path) -> None:
    files = layout_files(*LAYERS)
    index = json.loads(files["index.json"])
    index["manifests"].append({"mediaType": "application/x.other", "digest": digest(b""), "size": 0})
    files["index.json"] = json.dumps(index).encode()
    with opening.opened(store, unpacked(tmp_path / "lay", files)) as found:
        assert len(found) == 1


# -- what is refused -----------------------------------------------------------------------------------------


def spoiled(name: str, data: bytes | tuple[bytes, str] | None) -> dict[str, Any]:
    files: dict[str, Any] = docker_files(*LAYERS[:1])
    layer = next(each for each in files if each.endswith(".tar"))
    name = {"LAYER": layer, "CONFIG": next(each for each in files if each.endswith(".json"))}.get(name, name)
    files[name] = data
    return {key: value for key, value in files.items() if value is not None}


def entry_with(**more: Any) -> bytes:
    return docker_files(*LAYERS[:1], **more)["manifest.json"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("manifest.json", None, "has no image in it"),
        ("manifest.json", b"{}", "no list of images"),
        ("manifest.json", b"[1]", "no JSON object"),
        ("manifest.json", b"[" * 100_000, "nested too deep"),
        ("manifest.json", b" " * (MAX_DOCUMENT + 1), "longer than"),
        ("manifest.json", (tarfile.SYMTYPE, "manifest.json"), "circle"),
        ("manifest.json", (tarfile.SYMTYPE, "/etc/passwd"), "has no image in it"),
        ("manifest.json", (tarfile.SYMTYPE, "../../etc/passwd"), "out of it"),
        ("manifest.json", (tarfile.FIFOTYPE, ""), "is a named pipe"),
        ("manifest.json", (tarfile.CHRTYPE, ""), "is a character device"),
        ("manifest.json", entry_with(Layers=["/etc/passwd"]), "names a file"),
        ("manifest.json", entry_with(Layers=["../x"]), "names a file"),
        ("manifest.json", entry_with(Config="."), "names a file"),
        ("manifest.json", entry_with(Layers=["x"] * 501), "500 are read at most"),
        ("manifest.json", entry_with(Layers=[]), "speaks of 1 layers"),
        ("manifest.json", entry_with(RepoTags=["UPPER"]), "a name that is none"),
        ("LAYER", None, "has no "),
        ("LAYER", (tarfile.SYMTYPE, "/dev/zero"), "has no dev/zero"),
        ("LAYER", lzma.compress(LAYERS[0]), "compressed with xz"),
        ("CONFIG", b"{}", "not what its name says"),
    ],
)
def test_docker_archives_that_are_refused(
    store: Store, tmp_path: Path, name: str, data: bytes | tuple[bytes, str] | None, words: str
) -> None:
    path = written(tmp_path / "archive", spoiled(name, data))
    with pytest.raises((Damaged, NotFound), match=words), opening.opened(store, path) as [image]:
        whole(image)


def test_two_entries_of_one_name(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path / "archive", docker_files(*LAYERS) | {"./manifest.json": b"[]"})
    with pytest.raises(Damaged, match="two entries"), opening.opened(store, path):
        pass


def test_an_archive_that_is_cut(store: Store, tmp_path: Path) -> None:
    data = a_tar(docker_files(*LAYERS))
    for size in (0, 100, 512, 5000, 12_000, len(data) // 2):
        (tmp_path / "archive").write_bytes(data[:size])
        with pytest.raises(Damaged, match="damaged"), opening.opened(store, str(tmp_path / "archive")):
            pass


@pytest.mark.parametrize("cut", [20, 2000])
def test_a_compressed_archive_that_is_cut(store: Store, tmp_path: Path, cut: int) -> None:
    (tmp_path / "archive").write_bytes(gzip.compress(a_tar(docker_files(*LAYERS)))[:-cut])
    with pytest.raises(Damaged, match="damaged"), opening.opened(store, str(tmp_path / "archive")):
        pass
    assert os.listdir(store.ingest) == []


def test_headers_beyond_measure(store: Store, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(a_tar({"x" * 2_000_000: b""}))
    with pytest.raises(Damaged, match="too long"), opening.opened(store, str(tmp_path / "archive")):
        pass


def test_entries_beyond_measure(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycore_images.archives.tarfiles.MAX_ENTRIES", 3)
    with (
        pytest.raises(Damaged, match="more than 3"),
        opening.opened(store, written(tmp_path / "archive", docker_files(*LAYERS))),
    ):
        pass


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_links_in_a_layout_lead_nowhere_else(store: Store, tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_bytes(LAYERS[0])
    unpacked(tmp_path / "lay", layout_files(LAYERS[0]))
    place = tmp_path / "lay" / blob(LAYERS[0])
    place.unlink()
    place.symlink_to(target if target.startswith("/") else f"../../../{target[3:]}")
    with opening.opened(store, str(tmp_path / "lay")) as [image], pytest.raises((NotFound, Damaged)):
        whole(image)


def test_a_layout_with_a_pipe_for_a_blob(store: Store, tmp_path: Path) -> None:
    unpacked(tmp_path / "lay", layout_files(LAYERS[0]))
    place = tmp_path / "lay" / blob(LAYERS[0])
    place.unlink()
    os.mkfifo(place)
    with opening.opened(store, str(tmp_path / "lay")) as [image], pytest.raises(Damaged, match="no regular file"):
        whole(image)


def test_what_is_no_file(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PycoreError, match="neither a file"), opening.opened(store, str(tmp_path / "pipe")):
        pass
    with pytest.raises(NotFound, match="no such file"), opening.opened(store, str(tmp_path / "none")):
        pass
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no image"), opening.opened(store, str(tmp_path / "empty")):
        pass


# -- writing -------------------------------------------------------------------------------------------------


def kept(store: Store, *layers: bytes, architecture: str = "amd64") -> Descriptor:
    """An image in the store."""
    parts = [store.add_blob(io.BytesIO(each), LAYER) for each in layers]
    config = store.add_document(a_config(*layers, architecture=architecture), CONFIG)
    return store.add_document(documents.manifest_of(config, parts), MANIFEST)


def save(store: Store, images: Iterable[tuple[Descriptor, tuple[str, ...]]], target: Target, docker: bool) -> None:
    writer = Writer(target, docker)
    for root, names in images:
        send(store, root, writer.sink(names))
    writer.finish()


def saved(store: Store, path: Path, *images: tuple[Descriptor, tuple[str, ...]], docker: bool = False) -> Path:
    with targets.tar_file(str(path)) as target:
        save(store, images, target, docker)
    return path


@pytest.mark.parametrize("docker", [False, True])
def test_what_is_saved_is_read_again(store: Store, tmp_path: Path, docker: bool) -> None:
    root = kept(store, *LAYERS)
    path = saved(store, tmp_path / "a.tar", (root, NAMES), docker=docker)
    assert saved(store, tmp_path / "b.tar", (root, NAMES), docker=docker).read_bytes() == path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with opening.opened(store, str(path)) as [image]:
        assert image.names == NAMES
        assert image.source.root() == root
        assert whole(image)[1] == list(LAYERS)
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert ("manifest.json" in names) == docker
        assert len(set(names)) == len(names)
        assert all(member.mtime == 0 and member.uid == 0 for member in tar.getmembers())
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar", "images"]


def test_several_images_in_one_archive(store: Store, tmp_path: Path) -> None:
    first, second = kept(store, *LAYERS[:2]), kept(store, *LAYERS)
    path = saved(store, tmp_path / "a.tar", (first, (NAMES[0],)), (second, (NAMES[1],)), docker=True)
    with tarfile.open(path) as tar:
        assert len(set(tar.getnames())) == len(tar.getnames())
        listed = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert [entry["RepoTags"] for entry in listed] == [[name] for name in NAMES]
    with opening.opened(store, str(path)) as found:
        assert [each.source.root() for each in found] == [first, second]


def test_only_manifest_json(store: Store, tmp_path: Path) -> None:
    """As Dockers before 25 read it."""
    path = saved(store, tmp_path / "a.tar", (kept(store, *LAYERS), NAMES), docker=True)
    with tarfile.open(path) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    del files["index.json"], files["oci-layout"]
    with opening.opened(store, written(tmp_path / "b.tar", files)) as [image]:
        assert image.names == NAMES
        assert whole(image)[1] == list(LAYERS)


def an_index(store: Store, *roots: Descriptor) -> Descriptor:
    platforms = ({"os": "linux", "architecture": name} for name in ("amd64", "arm64"))
    entries = [
        documents.describe(root) | {"platform": platform} for root, platform in zip(roots, platforms, strict=False)
    ]
    return store.add_document(documents.encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}), INDEX)


def test_an_index_goes_whole_where_it_is_whole(store: Store, tmp_path: Path) -> None:
    index = an_index(store, kept(store, LAYERS[0]), kept(store, LAYERS[1], architecture="arm64"))
    path = saved(store, tmp_path / "a.tar", (index, NAMES), docker=True)
    with opening.opened(store, str(path)) as [image]:
        assert image.source.root() == index
        assert image.names == NAMES


def into_layout(store: Store, path: Path, *images: tuple[Descriptor, tuple[str, ...]]) -> None:
    with targets.layout_directory(str(path)) as target:
        save(store, images, target, False)


def test_a_layout_as_a_directory(store: Store, tmp_path: Path) -> None:
    first, second = kept(store, *LAYERS[:2]), kept(store, *LAYERS)
    into_layout(store, tmp_path / "lay", (first, (NAMES[0],)))
    into_layout(store, tmp_path / "lay", (second, (NAMES[1],)))
    with opening.opened(store, str(tmp_path / "lay")) as found:
        assert {each.names: each.source.root() for each in found} == {(NAMES[0],): first, (NAMES[1],): second}
        assert [len(whole(each)[1]) for each in found] == [3, 2]
    into_layout(store, tmp_path / "lay", (second, NAMES))
    with opening.opened(store, str(tmp_path / "lay")) as [image]:
        assert set(image.names) == set(NAMES)
    assert sorted(os.listdir(tmp_path)) == ["images", "lay"]
    assert sorted(os.listdir(tmp_path / "lay")) == ["blobs", "index.json", "oci-layout"]


def test_something_else_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "lay").mkdir()
    (tmp_path / "lay" / "file").write_text("x")
    with pytest.raises(Conflict):
        into_layout(store, tmp_path / "lay", (kept(store, *LAYERS), NAMES))
    assert os.listdir(tmp_path / "lay") == ["file"]


def broken(store: Store) -> Descriptor:
    root = kept(store, *LAYERS)
    place = store.blob_path(digest(LAYERS[1]))
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    return root


def test_a_damaged_store_makes_no_archive(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"before")
    with pytest.raises(Damaged, match="not what its digest says"):
        saved(store, tmp_path / "a.tar", (broken(store), NAMES))
    with pytest.raises(Damaged, match="not what its digest says"):
        into_layout(store, tmp_path / "lay", (broken(store), NAMES))
    assert (tmp_path / "a.tar").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "images"]


def test_an_archive_into_a_pipe(store: Store, tmp_path: Path) -> None:
    root = kept(store, *LAYERS)
    read, write = os.pipe()
    parts: list[bytes] = []
    thread = threading.Thread(target=lambda: parts.extend(iter(lambda: os.read(read, 65536), b"")))
    thread.start()
    try:
        with targets.tar_stream(write) as target:
            save(store, [(root, NAMES)], target, False)
    finally:
        os.close(write)
        thread.join()
        os.close(read)
    assert b"".join(parts) == saved(store, tmp_path / "a.tar", (root, NAMES)).read_bytes()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A place with room for next to nothing."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_no_room_for_what_is_written(store: Store, full: Path) -> None:
    root = kept(store, a_layer(size=300_000))
    for write in (saved, into_layout):
        with pytest.raises(OSError, match="No space left on device") as raised:
            write(store, full / "out", (root, NAMES))
        assert raised.value.filename == str(full / "out")
        assert os.listdir(full) == []


@pytest.mark.root
def test_no_room_for_what_is_put_aside(full: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "archive", docker_files(a_layer(size=300_000)), gzip.compress)
    store = Store(full / "images")
    with pytest.raises(PycoreError, match="images: No space left") as raised, opening.opened(store, path):
        pass
    assert "image prune" in str(raised.value.hint)
    assert os.listdir(store.ingest) == []


# -- whatever comes ------------------------------------------------------------------------------------------


def attempt(store: Store, path: str) -> None:
    """It works, or it is an error with words; and whatever it is, nothing is left half done, and nothing is outside."""
    before = sorted(os.listdir(store.root.parent))
    try:
        with opening.opened(store, path) as found:
            for image in found:
                fetching.fetch(store, image.source)
    except PycoreError:
        pass
    if store.root.exists():
        assert [name for name in os.listdir(store.ingest) if not name.endswith(".lock")] == []
    assert sorted({*before, "images"}) == sorted({*os.listdir(store.root.parent), "images"})


FUZZ = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ODD_TEXT = st.sampled_from(["", ".", "..", "/", "../x", "a\0b", "\n", "manifest.json", "x" * 300])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ODD_TEXT | st.text(max_size=8)
JSON: st.SearchStrategy[object] = st.deferred(
    lambda: SCALARS | st.lists(JSON, max_size=4) | st.dictionaries(ODD_TEXT | st.text(max_size=8), JSON, max_size=4)
)


@pytest.mark.root
@FUZZ
@given(st.data())
def test_any_damage_to_an_archive(store: Store, tmp_path: Path, data: st.DataObject) -> None:
    forms = (docker_files(a_layer(size=10)), layout_files(a_layer(size=10)))
    content = bytearray(a_tar(data.draw(st.sampled_from(forms))))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 0x2E, 0x2F, 0x31, 0x32, 0x37, 0x4C, 0x78, 0x80, 0xFF]))
    (tmp_path / "archive").write_bytes(content)
    attempt(store, str(tmp_path / "archive"))


@pytest.mark.root
@FUZZ
@given(st.data())
def test_any_json(store: Store, tmp_path: Path, data: st.DataObject) -> None:
    """Documents in which something is another thing than it should be."""
    forms = (docker_files(a_layer(size=10)), layout_files(a_layer(size=10)))
    files = dict(data.draw(st.sampled_from(forms)))
    name = data.draw(st.sampled_from([each for each in files if files[each][:1] in (b"{", b"[")]))
    document = json.loads(files[name])
    spoil(document, data)
    files[name] = json.dumps(document).encode()
    attempt(store, written(tmp_path / "archive", files))


def spoil(document: Any, data: st.DataObject) -> None:
    while True:
        keys = [*document] if isinstance(document, dict) else [*range(len(document))]
        key = data.draw(st.sampled_from(keys)) if keys else None
        inner = document[key] if key is not None else None
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            document = inner
            continue
        if key is not None:
            document[key] = data.draw(JSON)
        return


@pytest.mark.root
@FUZZ
@given(st.data())
def test_any_damage_to_what_is_in_it(store: Store, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of a layer or a document that are other ones, in an archive that is sound."""
    files = dict(data.draw(st.sampled_from((docker_files(*LAYERS[:2]), layout_files(*LAYERS[:2])))))
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for place in data.draw(st.lists(st.integers(0, min(len(content), 600) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    files[name] = bytes(content)
    attempt(store, written(tmp_path / "archive", files))


@pytest.mark.root
@FUZZ
@given(st.data())
def test_any_document_with_the_right_digest(store: Store, tmp_path: Path, data: st.DataObject) -> None:
    """What an image says may be anything, though every digest is right."""
    layer = a_layer(size=10)
    files = {blob(layer): layer, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    spoiled = data.draw(st.sampled_from(["config", "manifest", "index"]))

    def kept(name: str, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        if name == spoiled:
            spoil(document, data)
        content = json.dumps(document).encode()
        files["index.json" if name == "index" else blob(content)] = content
        return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

    config = kept("config", json.loads(a_config(layer, config={"Env": ["A=1"], "Cmd": ["x"]}, history=[{}])), CONFIG)
    part = {"mediaType": LAYER, "digest": digest(layer), "size": len(layer)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [part]}
    kept("index", {"schemaVersion": 2, "manifests": [kept("manifest", manifest, MANIFEST)]}, INDEX)
    attempt(store, unpacked(Path(tempfile.mkdtemp(dir=tmp_path)), files))
