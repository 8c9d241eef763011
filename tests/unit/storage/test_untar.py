"""Tar files that nobody vouches for: what is sound is unpacked whole, what is not leaves nothing."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycore.errors import PycoreError
from pycore.linux import tarstream, untar
from pycore.linux.compression import zstandard

Entry = tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], bytes]


def entry(name: str, data: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes | None]:
    info = tarfile.TarInfo(name)
    info.uid, info.gid, info.size = os.geteuid(), os.getegid(), len(data or b"")
    info.type = tarfile.REGTYPE if data is not None else tarfile.DIRTYPE
    info.mode = 0o644 if data is not None else 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def link(name: str, target: str, hard: bool = False) -> tuple[tarfile.TarInfo, None]:
    return entry(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=target)[0], None


def write(path: Path, *entries: tuple[tarfile.TarInfo, bytes | None], mode: str = "w") -> str:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, data in entries:
            tar.addfile(info, None if data is None else io.BytesIO(data))
    return str(path)


def unpacked(archive: str | Path, root: Path) -> None:
    with open(archive, "rb") as file:
        untar.unpack_stream(file, str(archive), str(root))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the one that is unpacked to, with one file that must stay as it is."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("as it was")
    return place


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., Path]:
    """``unpack(entry(...), ...)``: the directory."""

    def do(*entries: tuple[tarfile.TarInfo, bytes | None]) -> Path:
        unpacked(write(tmp_path / "image.tar", *entries), tmp_path / "root")
        return tmp_path / "root"

    return do


def refused(tmp_path: Path, archive: str, words: str) -> None:
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(PycoreError, match=words) as caught:
        unpacked(archive, tmp_path / "root")
    assert archive in caught.value.message
    assert sorted(os.listdir(tmp_path)) == before


# -- sound ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_in_it_comes_out(tmp_path: Path, mode: str, form: int) -> None:
    long = "d/" + "n" * 90
    longer = f"d/{'d' * 60}/{'n' * 90}"
    with tarfile.open(tmp_path / "image", mode, format=form) as tar:  # type: ignore[call-overload]
        for info, data in (
            entry("./", mode=0o750),
            entry("d", mode=0o1777),
            entry(longer, b"y"),
            entry(long, b"x" * 3_000_000, mode=0o640, mtime=1_000_000_000),
            entry("d/empty", b""),
            link("d/soft", "../../../etc/passwd"),
            link("d/hard", long, hard=True),
            entry("d/pipe", type=tarfile.FIFOTYPE, mode=0o600),
        ):
            tar.addfile(info, None if data is None else io.BytesIO(data))
    unpacked(tmp_path / "image", tmp_path / "root")
    root = tmp_path / "root"
    assert stat.S_IMODE(root.stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o1777
    assert (root / long).read_bytes() == b"x" * 3_000_000
    assert (root / longer).read_bytes() == b"y"
    assert (root / long).stat().st_mtime == 1_000_000_000
    assert (root / long).samefile(root / "d/hard")
    assert os.readlink(root / "d/soft") == "../../../etc/passwd"
    assert stat.S_ISFIFO((root / "d/pipe").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["image", "root"]


def test_zeros_become_holes(unpack: Callable[..., Path]) -> None:
    root = unpack(entry("zeros", bytes(8 << 20)))
    info = (root / "zeros").stat()
    assert info.st_size == 8 << 20
    assert info.st_blocks * 512 < 1 << 20


def test_a_forgotten_directory_is_made(unpack: Callable[..., Path]) -> None:
    assert (unpack(entry("a/b/c", b"x")) / "a/b/c").read_text() == "x"


def test_the_last_of_two_entries_counts(unpack: Callable[..., Path], outside: Path) -> None:
    root = unpack(
        entry("a", b"one"), link("b", "a", hard=True), entry("a", b"two"),
        entry("dir"), link("dir", "elsewhere"), entry("dir"), entry("dir/x", b"x"),
    )  # fmt: skip
    assert ((root / "a").read_text(), (root / "b").read_text()) == ("two", "one")
    assert (root / "dir/x").read_text() == "x"
    assert not (root / "dir").is_symlink()


def test_a_leading_slash_means_nothing(unpack: Callable[..., Path]) -> None:
    name = f"/pycore-{os.getpid()}"
    assert (unpack(entry(name, b"x")) / name[1:]).read_text() == "x"
    assert not os.path.exists(name)


def test_devices_are_left_out(unpack: Callable[..., Path]) -> None:
    root = unpack(entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("sda", type=tarfile.BLKTYPE))
    assert os.listdir(root) == []


def test_attributes(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "image", "w", format=tarfile.PAX_FORMAT) as tar:
        info, data = entry("a", b"x")
        info.pax_headers = {
            f"SCHILY.xattr.{name}": "y" for name in ("user.good", "user.overlay.opaque", "trusted.overlay.redirect")
        }
        tar.addfile(info, io.BytesIO(data or b""))
    unpacked(tmp_path / "image", tmp_path / "root")
    assert os.listxattr(tmp_path / "root/a") == ["user.good"]


@pytest.mark.root
def test_owners_and_setuid_bits(tmp_path: Path) -> None:
    archive = write(tmp_path / "image", entry("a", b"x", uid=1000, gid=33, mode=0o4755), link("b", "a"))
    unpacked(archive, tmp_path / "root")
    info = (tmp_path / "root/a").stat()
    assert (info.st_uid, info.st_gid) == (1000, 33)
    assert stat.S_IMODE(info.st_mode) == 0o4755
    assert (tmp_path / "root/b").lstat().st_uid == os.geteuid()


# -- hostile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../outside/x", "a/../../outside/x", "..", "a/.."])
def test_a_name_that_leads_upwards(tmp_path: Path, outside: Path, name: str) -> None:
    refused(tmp_path, write(tmp_path / "image", entry("a"), entry(name, b"x")), "leads upwards")
    assert os.listdir(outside) == ["secret"]


@pytest.mark.parametrize("target", ["../outside", "{outside}", "../../../../../../../..{outside}", "/proc/self/cwd"])
def test_a_link_leads_nowhere_but_inside(tmp_path: Path, outside: Path, target: str) -> None:
    archive = write(tmp_path / "image", link("door", target.format(outside=outside)), entry("door/secret", b"changed"))
    with contextlib.suppress(OSError):  # what it leads to is not in the archive
        unpacked(archive, tmp_path / "root")
    assert (outside / "secret").read_text() == "as it was"
    assert os.listdir(outside) == ["secret"]


def test_a_link_that_takes_the_place_of_a_directory(tmp_path: Path, outside: Path) -> None:
    entries = [entry("a"), entry("a/b"), link("a/b", str(outside)), entry("a/b/secret", b"changed")]
    with pytest.raises(FileNotFoundError, match="a link on the way") as caught:
        unpacked(write(tmp_path / "image", *entries), tmp_path / "root")
    assert caught.value.filename == "a/b/secret"
    assert (outside / "secret").read_text() == "as it was"
    assert not (tmp_path / "root").exists()


def test_a_file_is_never_written_through_a_link(unpack: Callable[..., Path], outside: Path) -> None:
    root = unpack(link("a", str(outside / "secret")), entry("a", b"changed"))
    assert (outside / "secret").read_text() == "as it was"
    assert (root / "a").read_text() == "changed"


@pytest.mark.parametrize("target", ["../outside/secret", "a/../../outside/secret"])
def test_a_hard_link_to_what_is_outside(tmp_path: Path, outside: Path, target: str) -> None:
    refused(tmp_path, write(tmp_path / "image", link("a", target, hard=True)), "leads upwards")


def test_a_hard_link_through_a_link(tmp_path: Path, outside: Path) -> None:
    archive = write(tmp_path / "image", link("door", str(outside)), link("a", "door/secret", hard=True))
    with pytest.raises(FileNotFoundError):
        unpacked(archive, tmp_path / "root")
    assert (outside / "secret").stat().st_nlink == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_cut_off_archive(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "image"
    write(archive, entry("a", os.urandom(5000)), entry("b", b"y" * 5000), mode=mode)
    whole = archive.read_bytes()
    for length in {1, 5, 300, 512, 1024, 5000, *(len(whole) * part // 10 for part in range(1, 9))}:
        if length < min(len(whole), 11_776):  # what follows in a plain tar is more zeros
            archive.write_bytes(whole[:length])
            refused(tmp_path, str(archive), "damaged")


@pytest.mark.parametrize("content", [b"", b"not a tar file", bytes(100), os.urandom(4096), b"\x1f\x8b\x08garbage"])
def test_what_is_not_a_tar_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    refused(tmp_path, str(tmp_path / "image"), "damaged")


def test_a_wrong_checksum_at_the_very_end(tmp_path: Path) -> None:
    archive = tmp_path / "image"
    write(archive, entry("a", b"x"), mode="w:gz")
    whole = bytearray(archive.read_bytes())
    whole[-8] ^= 1
    archive.write_bytes(whole)
    refused(tmp_path, str(archive), "checksum")


def test_a_broken_header_is_not_the_end(tmp_path: Path) -> None:
    archive = tmp_path / "image"
    write(archive, entry("a", b"x"), entry("b", b"y"))
    whole = bytearray(archive.read_bytes())
    whole[1024 + 148] ^= 1  # the checksum of b's header
    archive.write_bytes(whole)
    refused(tmp_path, str(archive), "no end mark")


def header(name: bytes, size: bytes, kind: bytes) -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = size, b"00000000000\0"
    block[148:156], block[156:157] = b" " * 8, kind
    block[257:265] = b"ustar\00000"
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def test_a_header_that_says_it_is_gigabytes_long(tmp_path: Path) -> None:
    for kind in (b"x", b"L", b"K", b"g"):
        with gzip.open(tmp_path / "image", "wb") as file:
            file.write(header(b"x", b"77777777777\0", kind))
            file.write(bytes(64 << 20))
        refused(tmp_path, str(tmp_path / "image"), "too long")


@pytest.mark.parametrize("kind", [b"x", b"0", b"5"])
def test_a_negative_size(tmp_path: Path, kind: bytes) -> None:
    size = struct.pack(">Iq", 0xFFFFFFFF, -512)
    (tmp_path / "image").write_bytes(header(b"x", size, kind) + bytes(4096))
    with pytest.raises(PycoreError):
        unpacked(tmp_path / "image", tmp_path / "root")
    assert os.listdir(tmp_path) == ["image"]


def test_headers_without_end(tmp_path: Path) -> None:
    record = b"20 comment=abcdefgh\n"
    chain = (header(b"x", f"{len(record):011o}\0".encode(), b"x") + record.ljust(512, b"\0")) * 5000
    (tmp_path / "image").write_bytes(chain)
    refused(tmp_path, str(tmp_path / "image"), "damaged|too long")


@pytest.mark.parametrize(("limit", "words"), [("MAX_ENTRIES", "more than 3 entries"), ("MAX_BYTES", "larger than")])
def test_beyond_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, words: str) -> None:
    monkeypatch.setattr(tarstream, limit, 3 if limit == "MAX_ENTRIES" else 1 << 20)
    archive = write(tmp_path / "image", *(entry(str(number), bytes(300_000)) for number in range(5)), mode="w:gz")
    refused(tmp_path, archive, words)


def test_zstd(tmp_path: Path) -> None:
    """In one frame, and in two."""
    zstd = zstandard()
    plain = Path(write(tmp_path / "plain", entry("a", b"x" * 5000))).read_bytes()
    for number, data in enumerate((zstd.compress(plain), zstd.compress(plain[:700]) + zstd.compress(plain[700:]))):
        (tmp_path / "image").write_bytes(data)
        unpacked(tmp_path / "image", tmp_path / f"root{number}")
        assert (tmp_path / f"root{number}" / "a").read_bytes() == b"x" * 5000
    (tmp_path / "image").write_bytes(data[:-5])
    refused(tmp_path, str(tmp_path / "image"), "ends in the middle")


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=oldgnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax", "--sparse-version=1.0"],
    ],
)
def test_files_with_holes_as_gnu_tar_writes_them(tmp_path: Path, options: list[str]) -> None:
    """One with more pieces than a header of GNU's own format has room for, and one that ends with a hole."""
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "many", "wb") as file:
        for number in range(40):
            file.seek(number << 20)
            file.write(b"piece %d" % number)
    with open(source / "end", "wb") as file:
        file.write(b"x" * 5000)
        file.truncate(64 << 20)
    (source / "empty").touch()
    (source / ("long" * 60)).write_text("and a file after it")
    subprocess.run(["tar", "-cSf", tmp_path / "image", *options, "-C", source, "."], check=True)
    unpacked(tmp_path / "image", tmp_path / "root")
    for path in source.iterdir():
        made = tmp_path / "root" / path.name
        assert made.read_bytes() == path.read_bytes()
        assert made.stat().st_blocks <= path.stat().st_blocks + 8


def holes(tmp_path: Path, table: str, size: int) -> str:
    data = table.encode().ljust(512, b"\0") + bytes(512)
    info = entry("a", data)[0]
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
    with tarfile.open(tmp_path / "image", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    return str(tmp_path / "image")


@pytest.mark.parametrize(
    "numbers", ["2 0 5 3 5", "0", "1 0 999999", "1 5 -1", "1 0 4 7", "99999999999999999999999 0 1", "x"]
)
def test_a_map_of_holes_that_is_not_sound(tmp_path: Path, numbers: str) -> None:
    refused(tmp_path, holes(tmp_path, "".join(f"{number}\n" for number in numbers.split()), 1000), "damaged|too long")


def test_a_hole_larger_than_any_disk(tmp_path: Path) -> None:
    refused(tmp_path, holes(tmp_path, "1\n0\n512\n", 1 << 50), "refused")


def test_times_of_directories(unpack: Callable[..., Path]) -> None:
    """Also of those in which something was made later, and not of what is at the end of a link."""
    root = unpack(
        entry("a", mtime=1), entry("a/b", mtime=2), entry("c", mtime=3), entry("a/b/x", b"x"),
        entry("e", mtime=5), link("e", "c"),
    )  # fmt: skip
    assert [(root / name).stat().st_mtime for name in ("a", "a/b", "c")] == [1, 2, 3]


def test_a_directory_that_is_called_otherwise_later(unpack: Callable[..., Path]) -> None:
    """What was found once is looked for anew when something has gone."""
    root = unpack(
        entry("one"), entry("two"), link("door", "one"), entry("door/a", b""), link("door", "two"), entry("door/b", b"")
    )
    assert (os.listdir(root / "one"), os.listdir(root / "two")) == (["a"], ["b"])


def test_modes_whatever_the_umask(unpack: Callable[..., Path]) -> None:
    before = os.umask(0o077)
    try:
        root = unpack(*(entry(f"{mode:o}", b"", mode=mode) for mode in (0o777, 0o644, 0o600, 0o4755, 0o0)))
    finally:
        os.umask(before)
    assert all(stat.S_IMODE(path.stat().st_mode) == int(path.name, 8) for path in root.iterdir())


def test_what_is_made_in_a_directory_that_gives_its_group(unpack: Callable[..., Path]) -> None:
    group = (os.getgroups() or [0])[-1]
    root = unpack(entry("d", mode=0o2755, gid=group), entry("d/a", b""), link("d/l", "a"))
    assert {(root / name).lstat().st_gid for name in ("d/a", "d/l")} == {os.getegid()}


@pytest.mark.parametrize("rest", [b"", bytes(20), b"\xff" * 20])
def test_damaged_zstd(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "image").write_bytes(b"\x28\xb5\x2f\xfd" + rest)
    refused(tmp_path, str(tmp_path / "image"), "damaged")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_damage_is_an_error_with_words_or_no_damage(tmp_path: Path, data: st.DataObject) -> None:
    """Flip bytes of a sound archive: nothing but OSError or PycoreError, nothing outside, nothing half done."""
    archive = tmp_path / "image"
    write(archive, entry("d"), entry("d/a", b"x" * 700), link("l", "d/a"), link("h", "d/a", hard=True))
    content = bytearray(archive.read_bytes())
    for place in data.draw(st.lists(st.integers(0, 4095), min_size=1, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 0x2E, 0x2F, 0x31, 0x37, 0x80, 0xFF]))
    archive.write_bytes(content)
    root = tmp_path / "root"
    try:
        unpacked(archive, root)
    except (OSError, PycoreError):
        assert not root.exists()
    else:
        untar.rmtree.remove(str(root))
    assert os.listdir(tmp_path) == ["image"]
