"""Trees are copied so that nothing tells the copy from the original, and removed however deep they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.linux import copytree, rmtree
from support.trees import looks, rich


@pytest.fixture
def original(tmp_path: Path) -> Path:
    place = rich(tmp_path / "original")
    os.setxattr(place / "d", "user.overlay.opaque", b"y")
    return place


def test_a_copy_is_like_the_original(original: Path, tmp_path: Path) -> None:
    copytree.copy(str(original), str(tmp_path / "copy"))
    os.removexattr(original / "d", "user.overlay.opaque")
    assert looks(tmp_path / "copy") == looks(original)
    assert (tmp_path / "copy/sparse").stat().st_blocks == (original / "sparse").stat().st_blocks


def test_devices_and_sockets_are_left_out(original: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(original / "socket"))
        copytree.copy(str(original), str(tmp_path / "copy"))
    assert set(os.listdir(original)) - set(os.listdir(tmp_path / "copy")) == {"socket"}


def test_the_copy_must_not_be_there(original: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/kept").touch()
    with pytest.raises(FileExistsError):
        copytree.copy(str(original), str(tmp_path / "copy"))
    assert os.listdir(tmp_path / "copy") == ["kept"]


def test_a_source_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copytree.copy(str(tmp_path / "nothing"), str(tmp_path / "copy"))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_owners_are_kept_or_moved(original: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(original.rglob("*"))):
        os.chown(path, number, number + 1, follow_symlinks=False)
    (original / "d/file").chmod(0o6755)
    os.removexattr(original / "d", "user.overlay.opaque")
    copytree.copy(str(original), str(tmp_path / "copy"))
    assert looks(tmp_path / "copy") == looks(original)
    copytree.copy(str(original), str(tmp_path / "mapped"), 100000)
    for path in original.rglob("*"):
        moved = (tmp_path / "mapped" / path.relative_to(original)).lstat()
        assert (moved.st_uid, moved.st_mode) == (path.lstat().st_uid + 100000, path.lstat().st_mode)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A tree that is deeper than Python's stack, the limit of open files and the length of a path."""
    here = os.open(".", os.O_RDONLY)
    os.mkdir(tmp_path / "deep")
    os.chdir(tmp_path / "deep")
    try:
        for _ in range(3000):
            os.mkdir("d" * 5)
            os.symlink("/etc", "link")
            os.chdir("d" * 5)
    finally:
        os.fchdir(here)
        os.close(here)
    yield tmp_path / "deep"
    if (tmp_path / "deep").exists():
        rmtree.remove(str(tmp_path / "deep"))


def test_a_deep_tree_is_removed(deep: Path) -> None:
    rmtree.remove(str(deep))
    assert not deep.exists()
    assert os.path.isfile("/etc/passwd")


def test_a_tree_too_deep_to_copy_is_an_error_with_nothing_left(deep: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        copytree.copy(str(deep), str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_link_is_not_followed_when_removing(tmp_path: Path, original: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    before = looks(original)
    with pytest.raises(NotADirectoryError):
        rmtree.remove(str(tmp_path / "link"))
    assert looks(original) == before
