"""What is different between what some layers make together and what others do."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from pycore.linux import layered
from pycore.linux.layered import Change

GONE, EMPTIED = "a whiteout", "an opaque directory"


def a_layer(path: Path, files: Mapping[str, str]) -> str:
    path.mkdir()
    for name, content in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is GONE:
            os.mknod(place, stat.S_IFCHR)
        elif content is EMPTIED:
            place.mkdir(exist_ok=True)
            os.setxattr(place, layered.OPAQUE, b"y")
        elif content.startswith("-> "):
            place.symlink_to(content[3:])
        else:
            place.write_text(content)
    return str(path)


pytestmark = pytest.mark.root  # mknod(2), trusted attributes

BASE = {"a": "1", "d/x": "1", "d/y": "1", "e/f/g": "1", "link": "-> a", "same/x": "1"}


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ({}, ""),
        ({"a": "1"}, ""),
        ({"a": "2"}, "C /a"),
        ({"a": "22"}, "C /a"),
        ({"b": "1"}, "A /b"),
        ({"a": GONE}, "D /a"),
        ({"none": GONE}, ""),
        ({"d/x": GONE}, "C /d, D /d/x"),
        ({"d": GONE}, "D /d"),
        ({"d": EMPTIED, "d/z": "1"}, "C /d, D /d/x, D /d/y, A /d/z"),
        ({"d": "a file"}, "C /d"),
        ({"a/b": "1"}, "C /a, A /a/b"),
        ({"link": "-> d"}, "C /link"),
        ({"link": "-> a"}, ""),
        ({"e/f/h/i": "1"}, "C /e, C /e/f, A /e/f/h, A /e/f/h/i"),
    ],
)
def test_one_layer_more(tmp_path: Path, upper: Mapping[str, str], expected: str) -> None:
    base, top = a_layer(tmp_path / "base", BASE), a_layer(tmp_path / "top", upper)
    found = layered.changes_between([base], [top, base])
    assert ", ".join(f"{each.kind} {each.path}" for each in found) == expected
    assert {each.path for each in layered.changes_between([top, base], [base])} >= {each.path for each in found} - {
        "/a/b",
        "/e/f/h/i",  # what is in a directory that goes, goes with it
    }


def test_layers_that_have_nothing_in_common(tmp_path: Path) -> None:
    """The same files are the same, whichever layers they are in, and whenever they were written."""
    one = [a_layer(tmp_path / "1", {"d/x": "1", "a": "1"}), a_layer(tmp_path / "2", {"d/y": "1"})]
    other = [a_layer(tmp_path / "3", {"d/x": "1", "d/y": "1", "a": "1"})]
    assert layered.changes_between(one, other) == []
    os.chmod(tmp_path / "3" / "a", 0o600)
    os.chown(tmp_path / "3" / "d", 5, 5)
    os.setxattr(tmp_path / "3" / "d" / "x", "user.a", b"b")
    assert layered.changes_between(one, other) == [Change("/a", "C"), Change("/d", "C"), Change("/d/x", "C")]


def test_devices_and_pipes(tmp_path: Path) -> None:
    one, other = a_layer(tmp_path / "1", {}), a_layer(tmp_path / "2", {})
    for layer, minor in ((one, 3), (other, 5)):
        os.mkfifo(f"{layer}/pipe")
        os.mknod(f"{layer}/device", stat.S_IFCHR | 0o600, os.makedev(1, minor))
    assert layered.changes_between([one], [other]) == [Change("/device", "C")]
