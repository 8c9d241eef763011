"""Images go to skopeo, umoci and podman and come back, in every form, and no file of theirs is another one after."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pycore_images import documents
from pycore_images.content import CONFIG, LAYER, MANIFEST, Descriptor
from support.command import Command
from support.needs import ROOT
from support.trees import looks, rich

sys.path.append(str(ROOT / "tests/bench"))
from image import make_root

pytestmark = [pytest.mark.root, pytest.mark.needs("skopeo", "umoci")]

NAME = "localhost/team/app:1"
FORMATS = {"docker-archive": "docker-archive", "oci-archive": "oci-archive", "oci-dir": "oci"}
"""Ours, and skopeo's words for them."""

Looks = dict[str, Any]


def run(*words: str | Path, **options: Any) -> str:
    done = subprocess.run(
        [str(word) for word in words], text=True, check=False, stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stdout} {done.stderr}"
    return str(done.stdout)


# -- an image with everything --------------------------------------------------------------------------------


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw=ep, as ping(8) has it in images (linux/capability.h, struct vfs_cap_data)."""


def first_layer(root: Path) -> None:
    for name in ("dev", "etc", "proc", "sys", "tmp"):  # where containers have something mounted
        (root / name).mkdir(exist_ok=True)
    for name in ("hosts", "hostname", "resolv.conf"):
        (root / "etc" / name).write_text("")
    rich(root / "srv")
    os.mknod(root / "srv/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "srv/block", stat.S_IFBLK | 0o600, os.makedev(7, 3))
    os.chown(root / "srv/d/e/none", 1000, 60_000)
    os.setxattr(root / "srv/d/e/none", "security.capability", CAPABILITY)
    for name in ("gone", "emptied", "kept"):
        (root / name).mkdir()
        (root / name / "old").write_text(name)
    (root / "replaced").mkdir()  # empty: of what umoci writes otherwise, podman can make nothing
    (root / "file").write_text("old")
    (root / "many").mkdir()
    for number in range(300):
        (root / "many" / f"{number}").write_text(f"{number}")


def second_layer(root: Path) -> None:
    """What an upper layer can do to a lower one."""
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "emptied")
    (root / "emptied").mkdir(mode=0o750)
    (root / "emptied/new").write_text("new")
    (root / "replaced").rmdir()
    (root / "replaced").write_text("a file now")
    (root / "file").unlink()
    (root / "file").mkdir()
    (root / "kept/old").unlink()
    (root / "kept/new").write_text("new")
    (root / "many/7").unlink()
    os.chown(root / "srv/d", 33, 33)
    os.setxattr(root / "srv/d/file", "user.other", b"more")
    # umoci leaves directories out of a layer that are as they were: here they would be root's, and as old as the layer.
    for directory, _, _ in os.walk(root):
        os.utime(directory, ns=(10**18, 10**18 + 10**9))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by umoci: two layers, compressed with gzip."""
    place = tmp_path_factory.mktemp("umoci")
    image = f"{place / 'layout'}:{NAME}"
    run("umoci", "init", "--layout", place / "layout")
    run("umoci", "new", "--image", image)
    for layer in (first_layer, second_layer):
        run("umoci", "unpack", "--image", image, place / "bundle")
        layer(place / "bundle/rootfs")
        run("umoci", "repack", "--image", image, place / "bundle")
        shutil.rmtree(place / "bundle")
    run("umoci", "config", "--image", image, "--config.cmd", "/bin/app", "--config.env", "A=1")
    return place / "layout"


def as_umoci_has_it(layout: Path, place: Path) -> Looks:
    run("umoci", "unpack", "--image", f"{layout}:{NAME}", place / "bundle")
    found = looks(place / "bundle/rootfs")
    shutil.rmtree(place / "bundle")
    return found


@pytest.fixture(scope="module")
def expected(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Looks:
    return as_umoci_has_it(layout, tmp_path_factory.mktemp("expected"))


def as_we_have_it(pycore: Command, name: str = NAME) -> Looks:
    """What is in a container of the image."""
    pycore("create", "--name", "looked", "--network", "none", "--pull", "never", name, "true")
    found = exported(pycore, "looked")
    pycore("down", "looked")
    return found


def exported(pycore: Command, container: str) -> Looks:
    """What is in a container."""
    pycore("export", container, "-o", "looked.tar")
    place = pycore.directory / "looked"
    place.mkdir()
    run("tar", "-xp", "--xattrs", "--xattrs-include=*", "-f", pycore.directory / "looked.tar", "-C", place)
    found = looks(place)
    shutil.rmtree(place)
    return found


def same(found: Looks, wanted: Looks) -> None:
    """File by file; the directory itself is as old as whoever made it says."""
    assert found.keys() == wanted.keys()
    for name in sorted(wanted.keys() - {"."}):
        assert found[name] == wanted[name], name
    assert found["."]["mode"] == wanted["."]["mode"]


def without_linked_links(found: Looks) -> Looks:
    """podman makes two of a symbolic link with two names."""
    return {name: each | ({"first name": name} if each["link"] else {}) for name, each in found.items()}


def test_the_image_has_everything(expected: Looks) -> None:
    assert expected["srv/d/e/hard"]["first name"] == expected["srv/d/file"]["first name"]
    assert expected["srv/d/soft"]["first name"] == expected["srv/d/soft too"]["first name"]
    assert expected["srv/d"]["owner"] == (33, 33)
    assert stat.S_ISBLK(expected["srv/block"]["mode"])
    assert expected["srv/d/file"]["attributes"] == {"user.word": b"\0value", "user.other": b"more"}
    assert expected["srv/d/e/none"]["attributes"] == {"security.capability": CAPABILITY}
    assert expected["srv/d/file"]["mode"] == stat.S_IFREG | 0o4711
    assert "gone" not in expected
    assert "emptied/old" not in expected
    assert "many/7" not in expected


# -- from umoci, and back ------------------------------------------------------------------------------------


def test_what_umoci_made_is_the_same_here(pycore: Command, layout: Path, expected: Looks) -> None:
    pycore("load", "-i", str(layout))
    same(as_we_have_it(pycore), expected)
    (sparse,) = pycore.data_dir.glob("images/layers/*/tree/srv/sparse")
    assert sparse.stat().st_blocks * 512 < 2 << 20, "holes stay holes on our disk"


@pytest.mark.parametrize("form", FORMATS)
def test_there_and_back(pycore: Command, layout: Path, expected: Looks, form: str) -> None:
    pycore("load", "-i", str(layout))
    digest = pycore.json("images")[0]["digest"]
    pycore("save", NAME, "-o", "saved", "--format", form)
    first = tree_of(pycore.directory / "saved")
    pycore("save", NAME, "-o", "again", "--format", form)
    assert tree_of(pycore.directory / "again") == first, "the same image gives the same bytes"

    place = pycore.directory
    source = f"{FORMATS[form]}:{place / 'saved'}" + ("" if form == "docker-archive" else f":{NAME}")
    run("skopeo", "copy", "-q", source, f"oci:{place / 'copied'}:{NAME}")
    same(as_umoci_has_it(place / "copied", place), expected)

    other = Command(place / "other")
    other.directory.mkdir()
    try:
        other("load", "-i", str(place / "saved"))
        assert [(row["name"], row["digest"]) for row in other.json("images")] == [(NAME, digest)]
        with open(place / "saved.tar", "wb") as file:
            other("save", NAME, stdout=file)
    finally:
        other.end()
    if form == "docker-archive":
        assert (place / "saved.tar").read_bytes() == (place / "saved").read_bytes()


def tree_of(path: Path) -> Mapping[str, bytes]:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
@pytest.mark.parametrize("pack", ["plain", "gzip", "xz"])
def test_what_skopeo_writes(pycore: Command, layout: Path, expected: Looks, form: str, pack: str) -> None:
    place = pycore.directory / "from-skopeo"
    run("skopeo", "copy", "-q", f"oci:{layout}:{NAME}", f"{form}:{place}:{NAME}")
    if form == "oci" and pack == "gzip":
        run("tar", "-czf", f"{place}.tgz", "-C", place, ".")
        place = place.with_suffix(".tgz")
    elif form != "oci" and pack != "plain":
        run(pack, place, "-S", ".packed")
        place = place.with_suffix(".packed")
    pycore("load", "-i", str(place))
    same(as_we_have_it(pycore), expected)


# -- compressions --------------------------------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    module = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return bytes(module.compress(data))


PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, "+gzip": gzip.compress, "+zstd": zstd}


def repacked(layout: Path, place: Path, suffix: str) -> None:
    """The same image with layers that are compressed in another way."""
    blobs = place / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> Descriptor:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return Descriptor(media_type, f"sha256:{digest}", len(data))

    def get(descriptor: Descriptor) -> bytes:
        return (layout / "blobs/sha256" / descriptor.hex).read_bytes()

    index = documents.parse_index((layout / "index.json").read_bytes())
    manifest = documents.parse_manifest(get(index.manifests[0]))
    layers = [put(PACKED[suffix](gzip.decompress(get(layer))), f"{LAYER}{suffix}") for layer in manifest.layers]
    root = put(documents.manifest_of(put(get(manifest.config), CONFIG), layers), MANIFEST)
    entry = documents.describe(root) | {"annotations": {"org.opencontainers.image.ref.name": NAME}}
    (place / "index.json").write_bytes(documents.encode({"schemaVersion": 2, "manifests": [entry]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


@pytest.mark.parametrize("suffix", PACKED)
def test_however_layers_are_compressed(pycore: Command, layout: Path, expected: Looks, suffix: str) -> None:
    repacked(layout, pycore.directory / "packed", suffix)
    pycore("load", "-i", "packed")
    same(as_we_have_it(pycore), expected)
    pycore("save", NAME, "-o", "saved", "--format", "oci-archive")
    with tarfile.open(pycore.directory / "saved") as tar:
        there = {Path(member.name).name for member in tar if member.isfile()}
    assert {each.name for each in (pycore.directory / "packed/blobs/sha256").iterdir()} <= there


# -- podman --------------------------------------------------------------------------------------------------

Podman = Callable[..., str]


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    """With storage of its own."""
    with tempfile.TemporaryDirectory(prefix="pycore-") as runroot:  # 50 characters at most
        own = ["--root", tmp_path / "podman", "--runroot", runroot, "--storage-driver", "vfs"]

        def call(*words: str | Path) -> str:
            return run("podman", *own, *words)

        yield call
        call("rmi", "--all", "--force")


def as_podman_has_it(podman: Podman) -> Looks:
    place = podman("image", "mount", NAME).strip()
    try:
        return looks(Path(place))
    finally:
        podman("image", "unmount", NAME)


@pytest.mark.needs("podman")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_there_and_back(pycore: Command, podman: Podman, layout: Path, expected: Looks, form: str) -> None:
    pycore("load", "-i", str(layout))
    pycore("save", NAME, "-o", "saved", "--format", form)
    assert NAME in podman("load", "-i", pycore.directory / "saved")
    wanted = without_linked_links(expected)
    same(without_linked_links(as_podman_has_it(podman)), wanted)
    told = json.loads(podman("image", "inspect", NAME))[0]["Config"]
    assert told["Cmd"] == ["/bin/app"]
    podman("save", "-q", "--format", form, "-o", pycore.directory / "back", NAME)
    other = Command(pycore.directory / "other")
    other.directory.mkdir()
    try:
        assert NAME in other("load", "-i", str(pycore.directory / "back"))
        same(without_linked_links(as_we_have_it(other)), wanted)
    finally:
        other.end()


# -- images that are made here -------------------------------------------------------------------------------


CHANGES = """
rm -r /gone /emptied && mkdir -m 750 /emptied && echo new > /emptied/new
rm -r /replaced && ln -s srv /replaced
rm /file && mkdir /file && echo in > /file/in
rm /kept/old /many/7 && echo new > /kept/new
chmod 700 /srv/d && chown 5:6 /file/in && ln /srv/d/file /linked && mkfifo /queue && cp -r /many /more
"""


@pytest.mark.parametrize("driver", ["overlayfs", "vfs"])
def test_what_is_committed(pycore: Command, tmp_path: Path, driver: str) -> None:
    """For umoci the new image has what the container had, and so has one of its own for us."""
    root = make_root(tmp_path / "root", ("sh", "rm", "mkdir", "ln", "chmod", "chown", "cp", "mkfifo"))
    first_layer(root)
    pycore("import", str(root), "localhost/team/base:1")
    pycore(
        "run", "--name", "made", "--network", "none", "--storage", driver,
        "localhost/team/base:1", "sh", "-ec", CHANGES,
    )  # fmt: skip
    there = exported(pycore, "made")
    assert "emptied/old" not in there
    assert "many/7" not in there
    pycore("commit", "made", NAME)
    pycore("down", "made")
    pycore("save", NAME, "-o", "saved", "--format", "oci-dir")
    found = as_umoci_has_it(pycore.directory / "saved", pycore.directory)
    assert {name: each for name, each in found.items() if each["device"]}.keys() == {"srv/null", "srv/block"}
    assert whole_seconds(found) == whole_seconds(there)
    same(without_devices(as_we_have_it(pycore)), without_devices(there))


def whole_seconds(found: Looks) -> Looks:
    """umoci knows of no fractions."""
    files = without_devices(found)
    return {name: each | {"mtime": each["mtime"] // 10**9} for name, each in files.items() if name != "."}


def without_devices(found: Looks) -> Looks:
    """A copy has none (vfs); the image that is made of it has them from its base."""
    return {name: each for name, each in found.items() if not each["device"]}


@pytest.mark.parametrize("how", ["tar", "directory", "tar.gz"])
def test_what_is_imported(pycore: Command, tmp_path: Path, how: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    first_layer(root)
    path = str(root)
    if how != "directory":
        path = str(tmp_path / how)
        run(
            "tar",
            "-cS",
            "-z" if how == "tar.gz" else "--totals",
            "--format=pax",
            "--xattrs",
            "-f",
            path,
            "-C",
            root,
            ".",
        )
    pycore("import", path, NAME, "-c", 'CMD ["/bin/app"]', "-m", "by hand")
    same(as_we_have_it(pycore), looks(root))
    pycore("save", NAME, "-o", "saved", "--format", "oci-dir")
    same(as_umoci_has_it(pycore.directory / "saved", pycore.directory), looks(root))
