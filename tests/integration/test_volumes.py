"""Volumes: what a new one begins with, whose its files are, and what people do with them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from bench.image import make_root
from support.command import Command

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("rootfs") / "root", ("sh", "cat", "ls", "stat", "touch", "mkdir"))


def spec(rootfs: Path, script: str, *fields: str, name: str = "v", tables: str = "[volume.data]") -> str:
    lines = [f'name = "{name}"', "[container.c]", f'image = "{rootfs}"', f"command = ['sh', '-c', '''{script}''']"]
    return "\n".join([*lines, 'network.driver = "none"', 'goal = "exit-0"', *fields, tables])


def said(pycore: Command, text: str) -> str:
    file = pycore.write(text)
    pycore("apply", file)
    name = text.split('"')[1]
    output = pycore("logs", f"{name}/c")
    pycore("down", name)
    return output


# -- whose the files are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("userns", ["", 'isolation.userns = "300000:65536"'])
def test_the_owner_of_a_path_is_another_inside(pycore: Command, rootfs: Path, userns: str) -> None:
    site = pycore.directory / "site"
    site.mkdir()
    for name, owner in (("mine", 4711), ("other", 1000), ("roots", 0)):
        (site / name).touch()
        os.chown(site / name, owner, owner)
    os.chown(site, 4711, 4712)
    output = said(
        pycore,
        spec(
            rootfs,
            "stat -c '%u:%g' /srv /srv/mine /srv/other; touch /srv/made",
            f'storage.volumes = ["{site}:/srv:uid=1000,gid=33"]',
            'isolation.user = "1000:33"',
            userns,
        ),
    )
    assert output.split() == ["1000:33", "1000:4711", "4711:1000"]
    info = (site / "made").stat()
    assert (info.st_uid, info.st_gid) == (4711, 4712)
    assert (site / "roots").stat().st_uid == 0


def test_a_volume_is_the_same_in_every_user_namespace(pycore: Command, rootfs: Path) -> None:
    volumes = 'storage.volumes = ["data:/data"]'
    for userns in ('"300000:65536"', '"400000:65536"', '"host"'):
        script = "stat -c %u /data /data/* 2>/dev/null; touch /data/$$-$RANDOM; touch /data/x"
        output = said(pycore, spec(rootfs, script, volumes, f"isolation.userns = {userns}"))
        assert set(output.split()) == {"0"}
    assert {path.stat().st_uid for path in (pycore.data_dir / "volumes/v/data").iterdir()} == {0}


def test_an_id_that_the_user_namespace_has_not(pycore: Command, rootfs: Path) -> None:
    text = spec(rootfs, "true", 'storage.volumes = ["data:/data:uid=70000"]', 'isolation.userns = "300000:65536"')
    assert "id 70000 is beyond the 65536 ids" in pycore.fails("apply", pycore.write(text))


# -- parts -----------------------------------------------------------------------------------------------------


def test_a_part_of_a_volume_is_never_outside_of_it(pycore: Command, rootfs: Path) -> None:
    part = 'storage.volumes = ["data:/data:subpath=a/b"]'
    assert said(pycore, spec(rootfs, "touch /data/x; ls /data", part)) == "x\n"
    data = pycore.data_dir / "volumes/v/data"
    assert (data / "a/b/x").exists()
    for link in (str(rootfs), "../../../../../../../../../etc"):
        (data / "a/b/x").unlink(missing_ok=True)
        (data / "door").unlink(missing_ok=True)
        (data / "door").symlink_to(link)
        text = spec(rootfs, "ls /data", 'storage.volumes = ["data:/data:subpath=door"]')
        done = pycore.run("apply", pycore.write(text))
        assert done.status
        assert "Traceback" not in done.err
        pycore.run("down", "v")


def test_an_external_volume(pycore: Command, rootfs: Path) -> None:
    text = spec(rootfs, "touch /data/x", 'storage.volumes = ["data:/data"]', tables="[volume.data]\nexternal = true")
    assert "there is no volume data, which is external" in pycore.fails("apply", pycore.write(text), status=2)
    pycore("volume", "create", "data")
    assert said(pycore, text) == ""
    assert (pycore.data_dir / "volumes/.shared/data/x").exists()


def test_what_a_container_has_written(pycore: Command, rootfs: Path) -> None:
    pycore("apply", pycore.write(spec(rootfs, "mkdir /new; touch /new/file; cat /bin/sh > /etc/big")))
    assert pycore("diff", "v/c").splitlines()[-4:] == ["C /etc", "A /etc/big", "A /new", "A /new/file"]
    (row,) = pycore.json("ps", "-a", "--size")
    assert (rootfs / "bin/sh").stat().st_size < row["disk_bytes"] < 10 << 20
    assert pycore("ps", "-a", "-s").splitlines()[0].endswith("SIZE")


# -- verbs -----------------------------------------------------------------------------------------------------


def test_made_listed_removed(pycore: Command, rootfs: Path) -> None:
    assert pycore("volume", "create", "one", "--label", "for=tests", "--uid", "7", "--gid", "8") == "one\n"
    assert "already" in pycore.fails("volume", "create", "one")
    (row,) = pycore.json("volume", "ls")
    assert (row["name"], row["labels"], row["used_by"]) == ("one", {"for": "tests"}, [])
    assert (os.stat(row["path"]).st_uid, os.stat(row["path"]).st_gid) == (7, 8)
    pycore("apply", pycore.write(spec(rootfs, "touch /data/x", 'storage.volumes = ["data:/data"]')))
    (inspected,) = pycore.json("volume", "inspect", "v/data")
    assert inspected["used_by"] == ["v/c"]
    assert inspected["inodes"] == 2
    assert "used by v/c" in pycore.fails("volume", "rm", "v/data")
    assert pycore("volume", "ls", "-q").split() == ["one", "v/data"]
    assert pycore("volume", "ls", "-q", "--unused").split() == ["one"]
    assert "nothing is removed without --force" in pycore("volume", "prune")
    assert pycore.json("volume", "prune", "--force")["removed"] == ["one"]
    pycore("down", "v")
    assert pycore("volume", "rm", "v/data") == "v/data\n"
    assert "no such volume" in pycore.fails("volume", "rm", "v/data")
    pycore("volume", "rm", "--force", "v/data")
    pycore("volume", "create", "two")
    assert "no such volume: none" in pycore.fails("volume", "rm", "two", "none")
    assert pycore("volume", "ls", "-q") == "two\n", "all or none"
    assert pycore("volume", "rm", "--force", "two", "none", "two") == "two\n"
    assert pycore("volume", "ls", "-q") == ""
    assert [path for path in (pycore.data_dir / "volumes").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["../x", "a/b/c", ".shared/x", "", "a/../b", "/etc"])
def test_names_that_are_none(pycore: Command, name: str) -> None:
    for verb in ("create", "inspect", "rm"):
        assert "is no name of a volume" in pycore.fails("volume", verb, name, status=2)


def fill(volume: Path) -> None:
    os.chown(volume, 7, 8)
    volume.chmod(0o1750)
    (volume / "d").mkdir()
    (volume / "d/file").write_text("content\n")
    os.link(volume / "d/file", volume / "hard")
    (volume / "soft").symlink_to("/etc/passwd")
    os.chown(volume / "d/file", 1000, 33)
    (volume / "d/file").chmod(0o4755)
    os.setxattr(volume / "d", "user.word", b"value")
    with open(volume / "sparse", "wb") as file:
        file.truncate(5 << 20)


def looks(volume: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in sorted([volume, *volume.rglob("*")]):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found.append(
            (
                str(path.relative_to(volume)),
                info.st_mode,
                info.st_uid,
                info.st_gid,
                info.st_nlink,
                info.st_blocks,
                content,
            )
        )
    return found


def test_there_and_back(pycore: Command) -> None:
    pycore("volume", "create", "one", "--label", "a=b")
    one, two = (pycore.data_dir / "volumes/.shared" / name for name in ("one", "two"))
    fill(one)
    pycore("volume", "backup", "one", "one.tar")
    assert stat.S_IMODE((pycore.directory / "one.tar").stat().st_mode) == 0o600
    with open(pycore.directory / "piped.tar", "wb") as file:
        subprocess.run([pycore.program, "volume", "backup", "one"], env=pycore.env(), stdout=file, check=True)
    assert (pycore.directory / "piped.tar").read_bytes() == (pycore.directory / "one.tar").read_bytes()
    assert "/none/one.tar: No such file" in pycore.fails("volume", "backup", "one", "/none/one.tar")
    subprocess.run(["gzip", "-k", pycore.directory / "one.tar"], check=True)
    pycore("volume", "restore", "two", "one.tar.gz")
    assert looks(two) == looks(one)
    assert os.getxattr(two / "d", "user.word") == b"value"
    assert "not empty" in pycore.fails("volume", "restore", "two", "one.tar")
    (two / "more").touch()
    with open(pycore.directory / "one.tar", "rb") as file:
        pycore("volume", "restore", "--replace", "two", stdin=file)
    assert looks(two) == looks(one)
    pycore("volume", "snapshot", "one", "three")
    assert looks(pycore.data_dir / "volumes/.shared/three") == looks(one)
    (inspected,) = pycore.json("volume", "inspect", "three")
    assert inspected["labels"] == {"a": "b"}
    assert os.listdir(pycore.data_dir / "volumes/.passing") == []


def test_a_hostile_stream_leaves_nothing(pycore: Command) -> None:
    outside = pycore.directory / "outside"
    outside.mkdir()
    for name, entries in {
        "up": [("../outside/x", tarfile.REGTYPE, "")],
        "link": [("door", tarfile.SYMTYPE, str(outside)), ("door/x", tarfile.REGTYPE, "")],
        "hard": [("x", tarfile.LNKTYPE, "../../../../etc/passwd")],
    }.items():
        with tarfile.open(pycore.directory / f"{name}.tar", "w") as tar:
            for path, kind, target in entries:
                info = tarfile.TarInfo(path)
                info.type, info.linkname, info.size = kind, target, 0
                tar.addfile(info, io.BytesIO())
        assert pycore.fails("volume", "restore", name, f"{name}.tar")
    (pycore.directory / "none.tar").write_bytes(b"no tar" * 500)
    assert "damaged" in pycore.fails("volume", "restore", "none", "none.tar")
    assert os.listdir(outside) == []
    assert pycore("volume", "ls", "-q") == ""
    assert os.listdir(pycore.data_dir / "volumes/.passing") == []


def test_what_runs_is_not_replaced(pycore: Command, rootfs: Path) -> None:
    text = spec(rootfs, "cat", 'storage.volumes = ["data:/data"]', "stdin_open = true").replace('goal = "exit-0"\n', "")
    pycore("apply", pycore.write(text))
    pycore("volume", "backup", "v/data", "data.tar")
    assert "used by v/c" in pycore.fails("volume", "restore", "--replace", "v/data", "data.tar")


def test_a_reader_that_goes_ends_a_backup(pycore: Command) -> None:
    pycore("volume", "create", "big")
    (pycore.data_dir / "volumes/.shared/big/file").write_bytes(os.urandom(4 << 20))
    theirs, ours = os.pipe()
    process = pycore.popen("volume", "backup", "big", stdout=ours)
    os.close(ours)
    os.read(theirs, 100)
    process.terminate()
    process.communicate(timeout=20)
    os.close(theirs)
    pycore("volume", "rm", "big")
