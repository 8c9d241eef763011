"""Layers unpacked: what they become for overlayfs, and that a hostile one touches nothing and leaves nothing."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycore.errors import PycoreError
from pycore.linux import rmtree, tarstream
from pycore.linux.compression import zstandard
from pycore_images.content import Damaged
from pycore_images.layers import Unpacking
from support.layered import digest, entry, tar

pytestmark = pytest.mark.root

OPAQUE = "trusted.overlay.opaque"


def unpacked(tree: Path, data: bytes, piece: int = 1000) -> str:
    with Unpacking(tree) as unpacking:
        for place in range(0, len(data), piece):
            unpacking.feed(data[place : place + piece])
        return unpacking.finish(digest(data))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "tree"


def whiteout(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, b"")[0], b""


def is_whiteout(path: Path) -> bool:
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, zstandard().compress])
@pytest.mark.parametrize("piece", [1, 511, 1 << 20])
def test_whatever_it_is_compressed_with(tree: Path, compress: Callable[[bytes], bytes], piece: int) -> None:
    data = tar(entry("a", b"x" * 2000), entry("d"), entry("d/b", b"y"))
    assert unpacked(tree, compress(data), piece) == digest(data)
    assert (tree / "a").read_bytes() == b"x" * 2000
    assert (tree / "d" / "b").read_bytes() == b"y"


def test_nothing_at_all(tree: Path) -> None:
    assert unpacked(tree, b"") == digest(b"")
    assert os.listdir(tree) == []


def test_everything_is_kept(tree: Path) -> None:
    device = {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}
    info, data = entry("f", b"x", uid=1000, gid=33, mode=0o4755, mtime=12.5)
    info.pax_headers = {
        "SCHILY.xattr.user.note": "yes",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "mtime": "12.5",
    }
    unpacked(
        tree,
        tar(
            entry("d", uid=7, gid=8, mode=0o1777, mtime=5), (info, data), entry("null", **device),
            entry("pipe", type=tarfile.FIFOTYPE, mode=0o600), entry("s", type=tarfile.SYMTYPE, linkname="/f", uid=3),
            entry("d/h", type=tarfile.LNKTYPE, linkname="f"), entry("sda", type=tarfile.BLKTYPE, devmajor=8),
        ),
    )  # fmt: skip
    found = (tree / "f").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1000, 33, 0o4755)
    assert (found.st_mtime, found.st_nlink) == (12.5, 2)
    assert os.listxattr(tree / "f") == ["user.note"]
    assert (tree / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((tree / "sda").stat().st_mode)
    assert stat.S_ISFIFO((tree / "pipe").stat().st_mode)
    assert ((tree / "s").lstat().st_uid, os.readlink(tree / "s")) == (3, "/f")
    directory = (tree / "d").stat()
    assert (directory.st_uid, stat.S_IMODE(directory.st_mode), directory.st_mtime) == (7, 0o1777, 5)


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw=ep, as ping(8) has it in images (linux/capability.h, struct vfs_cap_data)."""


def test_attributes_of_files_and_directories(tree: Path) -> None:
    info, data = entry("ping", b"x", uid=3)
    info.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")}
    directory = entry("d")
    directory[0].pax_headers = {"SCHILY.xattr.user.note": "yes"}
    unpacked(tree, tar((info, data), directory))
    assert os.getxattr(tree / "ping", "security.capability") == CAPABILITY
    assert os.getxattr(tree / "d", "user.note") == b"yes"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ids_that_seven_digits_have_no_room_for(tree: Path, form: int) -> None:
    unpacked(tree, tar(entry("f", b"", uid=3_000_000, gid=4_000_000_000), form=form))
    info = (tree / "f").stat()
    assert (info.st_uid, info.st_gid) == (3_000_000, 4_000_000_000)


def test_what_is_said_for_all_entries_once(tree: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", pax_headers={"gid": "33", "comment": "made by git archive"}) as archive:
        for name in ("a", "b"):
            archive.addfile(*entry(name)[:1])
    unpacked(tree, made.getvalue())
    assert [(tree / name).stat().st_gid for name in ("a", "b")] == [33, 33]


# -- whiteouts -----------------------------------------------------------------------------------------------


def test_a_whiteout(tree: Path) -> None:
    unpacked(tree, tar(entry("d"), whiteout("d/.wh.gone"), whiteout(".wh.top")))
    assert is_whiteout(tree / "d" / "gone")
    assert is_whiteout(tree / "top")
    assert sorted(os.listdir(tree)) == ["d", "top"]


def test_an_opaque_directory(tree: Path) -> None:
    unpacked(tree, tar(entry("d"), entry("d/before", b""), whiteout("d/.wh..wh..opq"), entry("d/after", b"")))
    assert os.getxattr(tree / "d", OPAQUE) == b"y"
    assert sorted(os.listdir(tree / "d")) == ["after", "before"]


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_beside_what_it_names(tree: Path, first: bool) -> None:
    """It hides what is below; what the same layer brings stays, in whichever order the two come."""
    brings = [entry("f", b"new"), entry("d"), entry("d/x", b"new")]
    hides = [whiteout(".wh.f"), whiteout(".wh.d")]
    unpacked(tree, tar(*(hides + brings if first else brings + hides)))
    assert (tree / "f").read_bytes() == b"new"
    assert (tree / "d" / "x").read_bytes() == b"new"
    assert os.getxattr(tree / "d", OPAQUE) == b"y"


@pytest.mark.parametrize("name", [".wh..wh.plnk", ".wh..wh.aufs", ".wh..wh..wh.x"])
def test_what_is_only_for_whoever_makes_layers(tree: Path, name: str) -> None:
    unpacked(tree, tar(whiteout(name), entry("f", b"")))
    assert os.listdir(tree) == ["f"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..."])
def test_a_whiteout_of_nothing(tree: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(Damaged, match="a whiteout of nothing"):
        unpacked(tree, tar(entry("d"), whiteout(name)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["d/../.wh.x", "../.wh.outside", ".wh.x/../../y"])
def test_a_whiteout_that_leads_upwards(tree: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("as it was")
    with pytest.raises(Damaged, match="leads upwards"):
        unpacked(tree, tar(entry("d"), whiteout(name)))
    assert os.listdir(tmp_path) == ["outside"]


def test_a_whiteout_through_a_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("as it was")
    door = entry("door", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    with contextlib.suppress(OSError):
        unpacked(tree, tar(door, whiteout("door/.wh.secret"), whiteout("door/.wh..wh..opq")))
    assert (tmp_path / "outside" / "secret").read_text() == "as it was"
    assert os.listxattr(tmp_path / "outside") == []


@pytest.mark.parametrize("instead", [entry("d", b"a file"), entry("d", type=tarfile.SYMTYPE, linkname="other")])
def test_whiteouts_for_what_was_in_a_directory(tree: Path, instead: tuple[tarfile.TarInfo, bytes | None]) -> None:
    """umoci writes them after what is there instead of it; what that leads to is not meant."""
    unpacked(tree, tar(entry("other"), entry("other/x", b""), instead, whiteout("d/.wh.x"), whiteout("d/.wh..wh..opq")))
    assert os.listdir(tree / "other") == ["x"]
    assert (tree / "other" / "x").is_file()
    assert os.listxattr(tree / "other") == []
    assert not stat.S_ISDIR((tree / "d").lstat().st_mode)


def test_a_name_with_a_slash_behind_it(tree: Path) -> None:
    unpacked(tree, tar(entry("./d/"), whiteout("./d//.wh.x"), whiteout("/.wh.y")))
    assert is_whiteout(tree / "d" / "x")
    assert is_whiteout(tree / "y")


def test_a_device_that_would_be_a_whiteout(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="would hide what is below"):
        unpacked(tree, tar(entry("etc", type=tarfile.CHRTYPE, devmajor=0, devminor=0)))
    assert os.listdir(tmp_path) == []


# -- hostile -------------------------------------------------------------------------------------------------


def refused(tree: Path, data: bytes, words: str) -> None:
    with pytest.raises((PycoreError, OSError), match=words) as caught:
        unpacked(tree, data, 1 << 20)
    assert len(str(caught.value)) < 600
    assert os.listdir(tree.parent) == []


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("../x", b"")], "leads upwards"),
        ([entry("a/../../x", b"")], "leads upwards"),
        ([entry("h", type=tarfile.LNKTYPE, linkname="../../etc/passwd")], "leads upwards"),
        ([entry("h", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "No such file"),
        ([entry("x" * 65_000, b"")], "File name too long"),
        ([entry("x/" * 32_000 + "y", b"")], "File name too long"),
        ([entry("a\nb", b""), entry("a\nb/c", b"")], r"a\\nb"),
        ([entry("d", b""), entry("d/x", b"")], "Not a directory"),
        ([entry("l", type=tarfile.SYMTYPE, linkname="l"), entry("l/x", b"")], "Too many levels|No such"),
        ([entry("u", b"", uid=1 << 40)], "owner that is none"),
    ],
)
def test_what_cannot_be_meant(tree: Path, entries: list[tuple[tarfile.TarInfo, bytes | None]], words: str) -> None:
    refused(tree, tar(*entries), words)


def test_absolute_names_stay_inside(tree: Path) -> None:
    unpacked(tree, tar(entry("/etc/x", b"y"), form=tarfile.GNU_FORMAT))
    assert (tree / "etc" / "x").read_bytes() == b"y"


def test_a_bomb(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "MAX_BYTES", 8 << 20)
    refused(tree, gzip.compress(tar(entry("zeros", bytes(20 << 20)))), "larger than")
    refused(tree, gzip.compress(tar(*(entry(str(number), bytes(1 << 20)) for number in range(20)))), "larger than")


def test_holes_larger_than_any_disk(tree: Path) -> None:
    info, data = entry("huge", b"1\n0\n512\n".ljust(512, b"\0") + bytes(512))
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 60)}
    refused(tree, tar((info, data)), "larger than 64 GiB")


def test_more_entries_than_anybody_needs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "MAX_ENTRIES", 100)
    refused(tree, tar(*(entry(str(number), b"") for number in range(200))), "more than 100 entries")


def test_directories_without_end(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycore.linux.untar.MAX_DIRECTORIES", 50)
    refused(tree, tar(*(entry(str(number)) for number in range(100))), "more than 50 directories")


def test_paths_without_end(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycore.linux.untar.MAX_PATHS", 1 << 20)
    deep = "/".join(["d" * 200] * 10)
    unpacked(tree, tar(*(entry(deep) for _ in range(600))))  # the same one again takes nothing
    rmtree.remove(str(tree))
    refused(tree, tar(entry(deep), *(entry(f"{deep}/{number}") for number in range(600))), "more than 1 million char")


def test_decompression_that_takes_more_memory_than_it_may(tree: Path) -> None:
    """What stands in the first bytes says how much of what was decompressed has to be kept: gigabytes here."""
    xz = bytearray(lzma.compress(tar(entry("a", b"x"))))
    end = 12 + (xz[12] + 1) * 4  # of the block header, whose last four bytes are its checksum
    xz[xz.index(0x21, 12) + 2] = 40
    xz[end - 4 : end] = zlib.crc32(xz[12 : end - 4]).to_bytes(4, "little")
    refused(tree, bytes(xz), "cannot be decompressed: Memory usage limit")
    window = 21 << 3  # 2 GiB (RFC 8878, 3.1.1.1.2)
    refused(tree, bytes([0x28, 0xB5, 0x2F, 0xFD, 0, window, 9, 0, 0, 65]), "cannot be decompressed")


def test_it_is_cut_off(tree: Path) -> None:
    whole = gzip.compress(tar(entry("a", os.urandom(10_000))))
    refused(tree, whole[:-100], "cannot be decompressed: it ends in the middle")
    refused(tree, whole[:-8] + bytes(8), "cannot be decompressed")
    refused(tree, tar(entry("a", bytes(10_000)))[:5000], "unexpected end")


@pytest.mark.parametrize("size", [1, 511, 100_000])
def test_what_is_no_archive(tree: Path, size: int) -> None:
    refused(tree, b"x" * size, "no sound tar archive")


def test_the_disk_is_full(tmp_path: Path) -> None:
    """Its words are the kernel's; what was made goes."""
    place = tmp_path / "small"
    place.mkdir()
    os.system(f"mount -t tmpfs -o size=1m tmpfs {place}")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            unpacked(place / "tree", tar(entry("a", os.urandom(3 << 20))), 1 << 16)
        assert os.listdir(place) == []
    finally:
        os.system(f"umount {place}")


def test_who_feeds_it_gives_up(tree: Path, tmp_path: Path) -> None:
    data = gzip.compress(tar(entry("a", os.urandom(3 << 20))))
    with contextlib.suppress(KeyboardInterrupt), Unpacking(tree) as unpacking:
        unpacking.feed(data[: 1 << 20])
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


names = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", ".wh.a", "a/.wh.b", ".wh..wh..opq", "a/.wh..wh..opq", "/b", "./a//b", "l", "l/x"]
)
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"S", b"V"]
)
targets = st.sampled_from(["a", "a/b", "..", "../../outside", "/", "/outside", "l", "."])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(names, kinds, targets, st.binary(max_size=20)), max_size=8), st.data())
def test_any_archive_is_unpacked_inside_or_refused(
    tmp_path: Path, entries: list[tuple[str, bytes, str, bytes]], data: st.DataObject
) -> None:
    """Entries in any order, bytes changed: no error but those with words, nothing outside, nothing half done."""
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    made = bytearray(
        tar(
            *(
                entry(name, content if kind == tarfile.REGTYPE else None, type=kind, linkname=target)
                for name, kind, target, content in entries
            ),
            form=tarfile.USTAR_FORMAT,
        )
    )
    for place in data.draw(st.lists(st.integers(0, len(made) - 1), max_size=3)):
        made[place] = data.draw(st.integers(0, 255))
    tree = tmp_path / "tree"
    try:
        unpacked(tree, bytes(made), 700)
    except (PycoreError, OSError):
        assert not tree.exists()
    else:
        rmtree.remove(str(tree))
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == []
    assert os.listxattr(outside) == []
