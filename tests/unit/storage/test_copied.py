"""What a container with a copy of its image has changed: told by looking at each file, as no layer says it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pycore.linux import copytree
from pycore_storage.snapshots import CopySnapshot

pytestmark = pytest.mark.root

TIME = (10**18, 10**18)


def _relinked(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    os.utime(root / "link", ns=TIME, follow_symlinks=False)


def _linked(root: Path) -> None:
    os.link(root / "file", root / "second")


def _rewritten(root: Path) -> None:
    (root / "file").write_text("other")
    os.utime(root / "file", ns=(TIME[0], TIME[1] + 1))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: None, {}),
        (lambda root: os.utime(root / "file", ns=TIME), {}),
        (_rewritten, {"/file": "C"}),
        (_relinked, {"/link": "C"}),
        (_linked, {"/file": "C", "/second": "A"}),
        (lambda root: os.setxattr(root / "file", "user.word", b"new"), {"/file": "C"}),
        (lambda root: os.setxattr(root / "d", "user.word", b"new"), {"/d": "C"}),
        (lambda root: os.chown(root / "d/inner", 5, -1), {"/d": "C", "/d/inner": "C"}),
        (lambda root: os.chmod(root / "pipe", 0o640), {"/pipe": "C"}),
        (lambda root: os.unlink(root / "pipe"), {"/pipe": "D"}),
    ],
)
def test_what_is_changed(tmp_path: Path, change: Callable[[Path], None], expected: dict[str, str]) -> None:
    image, own = tmp_path / "image", tmp_path / "own"
    (image / "d").mkdir(parents=True)
    (image / "file").write_text("first")
    (image / "d/inner").write_text("inner")
    (image / "link").symlink_to("file")
    os.mkfifo(image / "pipe", 0o600)
    for path in (image / "file", image / "link", image / "pipe", image / "d/inner"):
        os.utime(path, ns=TIME, follow_symlinks=False)
    own.mkdir()
    copytree.copy(str(image), str(own / "root"))
    change(own / "root")
    snapshot = CopySnapshot((str(image),), str(own))
    assert {each.path: each.kind for each in snapshot.changes()} == expected
    snapshot.commit(str(tmp_path / "layer"))
    there = {f"/{path.relative_to(tmp_path / 'layer')}" for path in (tmp_path / "layer").rglob("*")}
    assert there == expected.keys()
