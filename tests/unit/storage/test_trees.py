"""Trees are copied so that nothing tells the copy from the original, and removed however deep they are."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycore.linux import copytree, rmtree


def looks(path: Path) -> dict[str, Any]:
    """Everything that can be said of a tree, by relative path, but for inode numbers."""
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    for each in sorted([path, *path.rglob("*")]):
        info = each.lstat()
        name = str(each.relative_to(path))
        found[name] = {
            "mode": info.st_mode,
            "owner": (info.st_uid, info.st_gid),
            "mtime": info.st_mtime_ns,
            "size": info.st_size if not each.is_dir() or each.is_symlink() else None,
            "first name": None if stat.S_ISDIR(info.st_mode) else names.setdefault(info.st_ino, name),
            "content": each.read_bytes() if stat.S_ISREG(info.st_mode) else None,
            "link": os.readlink(each) if each.is_symlink() else None,
            "attributes": {name: os.getxattr(each, name) for name in os.listxattr(each, follow_symlinks=False)},
        }
    return found


@pytest.fixture
def original(tmp_path: Path) -> Path:
    place = tmp_path / "original"
    (place / "d/e").mkdir(parents=True)
    (place / "empty").mkdir(mode=0o700)
    (place / "d/file").write_bytes(os.urandom(100_000))
    (place / "d/e/none").write_bytes(b"")
    os.link(place / "d/file", place / "d/e/hard")
    os.symlink("../../../etc/passwd", place / "d/soft")
    os.link(place / "d/soft", place / "d/soft too", follow_symlinks=False)
    os.mkfifo(place / "pipe", 0o600)
    (place / b"\xff name".decode("utf-8", "surrogateescape")).write_text("odd")
    with open(place / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(10 << 20)
    os.setxattr(place / "d/file", "user.word", b"\0value")
    os.setxattr(place / "d", "user.overlay.opaque", b"y")
    (place / "d/file").chmod(0o4711)
    (place / "d").chmod(0o1777)
    for each in (place / "d/soft", place / "d/file", place / "d/e", place / "d", place):
        os.utime(each, ns=(10**18, 10**18 + 123), follow_symlinks=False)
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
