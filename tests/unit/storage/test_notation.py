from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore_storage.notation import TmpfsMount, VolumeMount, parse_target, parse_tmpfs, parse_volume


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("data:/srv", VolumeMount("data", "/srv")),
        ("data:/srv:ro", VolumeMount("data", "/srv", read_only=True)),
        ("./site:/srv:rw", VolumeMount("./site", "/srv")),
        ("../a:/b", VolumeMount("../a", "/b")),
        ("data:/b:ro,subpath=x//y/.", VolumeMount("data", "/b", read_only=True, subpath="x/y")),
        ("data:/b:uid=1000,gid=0,nocopy", VolumeMount("data", "/b", copied=False, uid=1000, gid=0)),
        (".:/b", VolumeMount(".", "/b")),
        ("/abs:/x//y/./z/", VolumeMount("/abs", "/x/y/z")),
    ],
)
def test_volumes(text: str, mount: VolumeMount) -> None:
    assert parse_volume(text) == mount
    assert mount.named == (mount.source == "data")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("data", "SOURCE:TARGET"),
        (":/srv", "SOURCE:TARGET"),
        ("a:/b:ro:z", "SOURCE:TARGET"),
        ("a:/b:z", 'unknown option "z"'),
        ("a:/b:", "unknown option"),
        ("a:/b:uid=x", "no user or group id"),
        ("a:/b:gid=4294967295", "no user or group id"),
        ("a:/b:subpath=", "a path below the volume"),
        ("a:/b:subpath=/etc", "a path below the volume"),
        ("a:/b:subpath=x/../..", "a path below the volume"),
        ("da ta:/srv", "neither a volume's name nor a path"),
        ("~/data:/srv", "neither a volume's name nor a path"),
        ("data:srv", "absolute path"),
        ("data:/a/../../etc", "without .."),
        ("data:/", "cannot be mounted on"),
        ("data:/.//", "cannot be mounted on"),
        ("data:/proc/sys", "cannot be mounted on"),
        ("data:/./proc", "cannot be mounted on"),
    ],
)
def test_volumes_that_cannot_be_meant(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_volume(text)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/run", TmpfsMount("/run")),
        ("/tmp:size=64M,mode=1777", TmpfsMount("/tmp", 64 << 20)),
        ("/tmp:mode=700,exec", TmpfsMount("/tmp", 0, 0o700, executable=True)),
        ("/tmp:exec,noexec", TmpfsMount("/tmp")),
    ],
)
def test_tmpfs(text: str, mount: TmpfsMount) -> None:
    assert parse_tmpfs(text) == mount


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/tmp:", "unknown option"),
        ("/tmp:size", "a size such as"),
        ("/tmp:size=a lot", "a size such as"),
        ("/tmp:mode=999", "octal"),
        ("/tmp:mode=17777", "octal"),
        ("/tmp:uid=0", 'unknown option "uid=0"'),
        ("tmp", "absolute path"),
        ("/", "cannot be mounted on"),
    ],
)
def test_tmpfs_that_cannot_be_meant(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_tmpfs(text)


@given(st.text(alphabet=st.sampled_from("ab/.:~0=,\n\0é proc")))
def test_any_text_is_a_mount_or_a_complaint(text: str) -> None:
    for parse in (parse_volume, parse_tmpfs):
        with contextlib.suppress(ValueError):
            target = parse(text).target
            assert parse_target(target) == target
            assert target.startswith("/")
            assert not {"", ".", ".."} & set(target[1:].split("/"))
            assert not f"{target}/".startswith("/proc/")
