"""Headers of tar streams: whoever reads them finds what was said."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycore.linux import tarstream
from pycore.linux.tarheader import header
from pycore.linux.tarstream import Entry, Kind

IDS = st.integers(0, 2**32 - 2)
NAMES = st.text(
    st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=120
).filter(lambda name: name not in (".", ".."))
ATTRIBUTES = st.dictionaries(st.sampled_from(["user.a", "user.b.c"]), st.binary(max_size=120), max_size=2)


@given(
    NAMES, st.sampled_from([*Kind]), st.integers(0, 0o7777), IDS, IDS, st.integers(0, (2**32 - 1) * 10**9),
    NAMES, st.integers(0, 4095), st.integers(0, 2**20 - 1), ATTRIBUTES,
)  # fmt: skip
def test_what_is_written_is_read(
    name: str, kind: Kind, mode: int, uid: int, gid: int, mtime: int, link: str, major: int, minor: int,
    xattrs: dict[str, bytes],
) -> None:  # fmt: skip
    device = kind in (Kind.CHARACTER, Kind.BLOCK)
    link = link if kind in (Kind.LINK, Kind.HARD_LINK) else ""
    numbers = (major, minor) if device else (0, 0)
    entry = Entry(name, kind, mode, uid, gid, 0, mtime, link, *numbers, xattrs=xattrs)
    data = header(entry, 0) + bytes(1024)
    ((_, found),) = tarstream.members(io.BytesIO(data), compressed=False)
    assert found == entry
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (theirs,) = tar.getmembers()
    assert (theirs.name, theirs.linkname, theirs.mode, theirs.uid, theirs.gid) == (name, link, mode, uid, gid)
    assert (theirs.devmajor, theirs.devminor) == numbers


@pytest.mark.parametrize("name", ["\udcff", "a" * 98, "a" * 99, "a" * 100, "d/" * 200 + "x", "\u00e4"])
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
def test_odd_names(name: str, kind: Kind) -> None:
    data = header(Entry(name, kind, 0o644, 0, 0, 0, 0), 0) + bytes(1024)
    ((_, found),) = tarstream.members(io.BytesIO(data), compressed=False)
    assert (found.name, found.kind) == (name, kind)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [name]


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**40])
def test_large_files(size: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(header(Entry("a", Kind.FILE, 0o644, 0, 0, size, 0), size))) as tar:
        member = tar.next()
    assert member is not None
    assert member.size == size


@pytest.mark.parametrize("mtime", [-1, -(10**9), -1_500_000_000, 10**18 + 7, (8**11) * 10**9])
def test_times(mtime: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(header(Entry("a", Kind.FILE, 0o644, 0, 0, 0, mtime), 0) + bytes(1024))) as tar:
        member = tar.next()
    assert member is not None
    assert member.mtime == pytest.approx(mtime / 10**9, abs=1)
