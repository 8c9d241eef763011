"""What a volume begins with: a directory of an image, whatever links the image has put on the way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from pycore.linux import imagecopy

pytestmark = pytest.mark.root


@pytest.fixture(params=[1, 2])
def layers(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """The uppermost first."""
    found = [tmp_path / f"layer{number}" for number in range(request.param)]
    for layer in found:
        layer.mkdir()
    return found


def copied(layers: Sequence[Path], path: str, to: Path) -> bool:
    return imagecopy.copy([str(layer) for layer in layers], path, str(to))


def test_files_with_all_that_is_theirs(layers: list[Path], tmp_path: Path) -> None:
    (layers[-1] / "srv/data/d").mkdir(parents=True)
    (layers[-1] / "srv/data/d/file").write_text("content")
    os.chown(layers[-1] / "srv/data", 1000, 33)
    (layers[0] / "link").symlink_to("/srv/data")
    for path, name in (("/srv/data", "one"), ("/link", "two")):
        assert copied(layers, path, tmp_path / name)
        assert (tmp_path / name / "d/file").read_text() == "content"
        assert (tmp_path / name).stat().st_uid == 1000


@pytest.mark.parametrize("target", ["{outside}", "../../../../../..{outside}", "/proc/self/cwd", "door", "none"])
def test_a_link_leads_nowhere_but_inside(layers: list[Path], tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("the host's")
    (layers[0] / "door").symlink_to(target.format(outside=outside))
    before = sorted(os.listdir(tmp_path))
    for path in ("/door", "/door/.", "/door/secret"):
        assert not copied(layers, path, tmp_path / "volume")
    assert sorted(os.listdir(tmp_path)) == before


def test_what_is_no_directory_is_nothing(layers: list[Path], tmp_path: Path) -> None:
    (layers[0] / "file").write_text("x")
    os.mkfifo(layers[0] / "pipe")
    for name in ("/file", "/pipe", "/file/below", "/none"):
        assert not copied(layers, name, tmp_path / "volume")


def test_in_the_place_of_an_empty_directory_alone(layers: list[Path], tmp_path: Path) -> None:
    (layers[0] / "data").mkdir()
    (layers[0] / "data/file").write_text("content")
    (tmp_path / "volume").mkdir()
    assert copied(layers, "/data", tmp_path / "volume")
    (tmp_path / "volume/file").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        copied(layers, "/data", tmp_path / "volume")
    assert (tmp_path / "volume/file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == sorted(["volume", *(layer.name for layer in layers)])
