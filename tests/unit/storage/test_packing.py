"""Trees as tar streams: nothing is lost, the same tree gives the same bytes, and layers keep what they take away."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore.linux import layered, libc, tarstream
from pycore.linux.packing import Packer
from pycore.linux.untar import Tree
from support.trees import looks, rich

pytestmark = pytest.mark.root  # owners, devices, trusted attributes


def packed(tree: Path, *, layer: bool = False, devices: bool = True) -> bytes:
    archive = tree.parent / f"{tree.name}.tar"
    with open(archive, "wb") as file:
        Packer(file.fileno(), devices=devices, layer=layer).pack_tree(str(tree))
    return archive.read_bytes()


def unpacked(data: bytes, place: Path, *, layer: bool = True) -> Path:
    place.mkdir()
    fd = os.open(place, os.O_RDONLY)
    try:
        with Tree(fd, layer=layer) as tree:
            for content, entry in tarstream.members(io.BytesIO(data)):
                tree.add(content, entry)
            tree.finish()
    finally:
        os.close(fd)
    return place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = rich(tmp_path / "tree")
    os.chown(place / "d/e/none", 1000, 3_000_000_000)
    os.mknod(place / "device", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mknod(place / "block", stat.S_IFBLK | 0o600, os.makedev(7, 70_000))
    (place / ("long" * 60)).mkdir()
    (place / ("long" * 60) / ("name" * 60)).write_text("x")
    os.symlink("x" * 300, place / "far")
    return place


def test_nothing_is_lost(tree: Path, tmp_path: Path) -> None:
    back = unpacked(packed(tree), tmp_path / "back")
    assert looks(back) == looks(tree)
    assert (back / "sparse").stat().st_blocks == (tree / "sparse").stat().st_blocks


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    first = packed(tree)
    (tmp_path / "elsewhere").mkdir()
    subprocess.run(["cp", "-a", str(tree), str(tmp_path / "elsewhere")], check=True)
    assert packed(tmp_path / "elsewhere" / "tree") == first


@pytest.mark.skipif(shutil.which("tar") is None, reason="for want of tar")
def test_gnu_tar_reads_it(tree: Path, tmp_path: Path) -> None:
    packed(tree)
    (tmp_path / "back").mkdir()
    words = [
        "tar",
        "-xp",
        "--xattrs",
        "--xattrs-include=user.*",
        "-f",
        str(tmp_path / "tree.tar"),
        "-C",
        str(tmp_path / "back"),
    ]
    subprocess.run(words, check=True)
    ours, theirs = looks(tree), looks(tmp_path / "back")
    assert theirs == ours


def test_python_reads_it(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(tree))) as tar:
        names = tar.getnames()
    assert names[0] == "."
    assert "d/e/hard" in names
    assert len(names) == len(looks(tree))


def test_what_a_layer_takes_away(tmp_path: Path) -> None:
    tree = tmp_path / "layer"
    (tree / "emptied").mkdir(parents=True)
    (tree / "emptied" / "new").write_text("x")
    os.setxattr(tree / "emptied", layered.OPAQUE, b"y")
    os.mknod(tree / "gone", stat.S_IFCHR)
    os.link(tree / "gone", tree / "emptied" / "gone too")
    data = packed(tree, layer=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert set(tar.getnames()) == {
            ".", ".wh.gone", "emptied", "emptied/.wh..wh..opq", "emptied/.wh.gone too", "emptied/new",
        }  # fmt: skip
        assert all(member.isreg() and not member.size for member in tar if ".wh." in member.name)
    back = unpacked(data, tmp_path / "back")
    assert layered.is_whiteout((back / "gone").lstat())
    assert os.getxattr(back / "emptied", layered.OPAQUE) == b"y"
    assert packed(back, layer=True) == data


def test_what_no_layer_can_have(tmp_path: Path) -> None:
    (tmp_path / "layer/d").mkdir(parents=True)
    (tmp_path / "layer/d/.wh.x").write_text("")
    with pytest.raises(PycoreError, match=r"d/\.wh\.x"):
        packed(tmp_path / "layer", layer=True)


def test_what_is_left_out(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    with open(os.devnull, "wb") as out:
        assert Packer(out.fileno()).pack_tree(str(tree)) == ["block", "device", "socket"]
        assert Packer(out.fileno(), devices=True).pack_tree(str(tree)) == ["socket"]


def test_a_mount_that_is_in_no_place(tree: Path, tmp_path: Path) -> None:
    """What /proc says that its path is, is the root: that of the host is not meant."""
    expected = packed(tree)
    fd = libc.open_tree(str(tree), recursive=False)
    try:
        with open(tmp_path / "out", "wb") as file:
            Packer(file.fileno(), devices=True).pack_tree(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    assert (tmp_path / "out").read_bytes() == expected
