"""cp: Docker's rules, what is kept of a file, and that nothing planted in a container leads out of it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore.launch.archive import Unpacker
from support.command import Command
from support.person import until

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]


@pytest.fixture(autouse=True)
def container(pycore: Command) -> Iterator[None]:
    """One with an image of its own, and a tmpfs as a volume."""
    image = pycore.directory / "image"
    for name in ("etc", "data", "proc", "sys", "dev", "tmp"):
        (image / name).mkdir(parents=True)
    (image / "etc" / "secret").write_text("the container's\n")
    busybox = "/bin:/bin:ro", "/lib:/lib:ro", "/usr:/usr:ro"
    volumes = [word for volume in busybox if os.path.exists(volume.partition(":")[0]) for word in ("-v", volume)]
    if os.path.exists("/lib64"):
        volumes += ["-v", "/lib64:/lib64:ro"]
    run = ("run", "-d", "--name", "t", "--network", "none", "--tmpfs", "/mem", *volumes, str(image))
    pycore(*run, "sleep", "1000")
    yield
    pycore.run("rm", "-f", "t")


def raw(pycore: Command, *words: str) -> subprocess.Popen[bytes]:
    """A command whose streams are bytes."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [pycore.program, *words], cwd=pycore.directory, env=pycore.env(), stdin=pipe, stdout=pipe, stderr=pipe
    )


def inside(pycore: Command, script: str) -> str:
    return pycore("exec", "t", "sh", "-c", script)


def test_a_file_goes_where_dockers_rules_say(pycore: Command) -> None:
    here = pycore.directory
    inside(pycore, "echo one > /data/file")
    pycore("cp", "t:/data/file", ".")
    pycore("cp", "t:/data/file", "other")
    pycore("cp", "t:data/file", "other")  # a file is written anew
    (here / "d").mkdir()
    pycore("cp", "t:/data/file", "d")
    for place in ("file", "other", "d/file"):
        assert (here / place).read_text() == "one\n"
    assert "no such directory" in pycore.fails("cp", "t:/data/file", "nowhere/")
    assert "No such file" in pycore.fails("cp", "t:/data/file", "nowhere/file")
    assert "No such file" in pycore.fails("cp", "t:/data/nonesuch", ".")
    assert not (here / "nonesuch").exists()


def test_a_directory_goes_where_dockers_rules_say(pycore: Command) -> None:
    here = pycore.directory
    inside(pycore, "mkdir -p /data/dir/sub; echo one > /data/dir/sub/file")
    pycore("cp", "t:/data/dir", "new")  # it becomes it
    pycore("cp", "t:/data/dir", "new")  # it goes into it
    pycore("cp", "t:/data/dir/.", "content")
    (here / "there").mkdir()
    pycore("cp", "t:/data/dir/.", "there")
    for place in ("new/sub/file", "new/dir/sub/file", "content/sub/file", "there/sub/file"):
        assert (here / place).read_text() == "one\n"
    (here / "plain").write_text("plain")
    assert "to a file" in pycore.fails("cp", "t:/data/dir", "plain")
    assert "to a file" in pycore.fails("cp", "t:/data/dir/.", "plain")
    (here / "there" / "sub" / "file").unlink()
    (here / "there" / "sub" / "file").mkdir()
    assert "it is there already, and a directory" in pycore.fails("cp", "t:/data/dir/.", "there")


def test_the_other_way_round_the_rules_are_the_same(pycore: Command) -> None:
    here = pycore.directory
    (here / "dir" / "sub").mkdir(parents=True)
    (here / "dir" / "sub" / "file").write_text("one\n")
    pycore("cp", "dir", "t:/data/new")
    pycore("cp", "dir", "t:/data/new")
    pycore("cp", "dir/.", "t:/data")
    pycore("cp", "dir/sub/file", "t:/data/name")
    pycore("cp", "dir/sub/file", "t:/mem/")
    places = "/data/new/sub/file /data/new/dir/sub/file /data/sub/file /data/name /mem/file"
    assert inside(pycore, f"cat {places}") == "one\n" * 5
    assert "to a file" in pycore.fails("cp", "dir", "t:/data/name")
    assert "no such directory" in pycore.fails("cp", "dir/sub/file", "t:/nowhere/")
    assert "No such file" in pycore.fails("cp", "nonesuch", "t:/data")
    assert "Read-only file system" in pycore.fails("cp", "dir", "t:/usr")


def test_what_is_a_container_and_what_is_a_path(pycore: Command) -> None:
    (pycore.directory / "a:b").write_text("x")
    pycore("cp", "./a:b", "t/t:/data")
    assert inside(pycore, "cat /data/a:b") == "x"
    assert "one of SOURCE and DESTINATION" in pycore.fails("cp", "t:/data", "t:/mem", status=2)
    assert "one of SOURCE and DESTINATION" in pycore.fails("cp", "a", "b", status=2)
    assert "no such container" in pycore.fails("cp", "nonesuch:/data", ".")


PLAIN = """
mkdir -p /data/d/sub; cd /data/d
printf 'x' > 'new
line'; printf x > "$(printf 'not\\377utf8')"
echo text > file; ln file hard; ln -s /etc/secret link; ln -s nowhere dangling; mkfifo pipe
truncate -s 1G sparse; printf end >> sparse
chmod 640 file; chmod 750 sub; chown 12:34 file
touch -h -d '2001-02-03 04:05:06.123456789' file link sub pipe
"""


def test_all_of_a_file_is_kept_there_and_back(pycore: Command) -> None:
    here = pycore.directory
    inside(pycore, PLAIN)
    pycore("cp", "-a", "t:/data/d", ".")
    pycore("cp", "-a", "d", "t:/mem/")
    pycore("cp", "-a", "t:/mem/d", "again")
    for copy in (here / "d", here / "again"):
        file = (copy / "file").stat()
        assert (file.st_mode & 0o7777, file.st_uid, file.st_gid) == (0o640, 12, 34)
        for name in ("file", "link", "sub", "pipe"):
            assert (copy / name).lstat().st_mtime_ns % 1_000_000_000 == 123456789, name
        assert os.path.samefile(copy / "file", copy / "hard")
        assert os.readlink(copy / "link") == "/etc/secret"
        assert os.readlink(copy / "dangling") == "nowhere"
        assert (copy / "pipe").is_fifo()
        assert (copy / "new\nline").read_text() == "x"
        assert (Path(os.fsdecode(bytes(copy))) / os.fsdecode(b"not\xffutf8")).read_text() == "x"
        sparse = copy / "sparse"
        assert sparse.stat().st_size == (1 << 30) + 3
        assert sparse.stat().st_blocks < 1000
        with sparse.open("rb") as opened:
            opened.seek(1 << 30)
            assert opened.read() == b"end"


def test_attributes_are_kept(pycore: Command) -> None:
    file = pycore.directory / "file"
    file.write_text("x")
    os.setxattr(file, "user.color", b"\xffgreen")
    pycore("cp", "file", "t:/data/")
    pycore("cp", "t:/data/file", "back")
    assert os.getxattr(pycore.directory / "back", "user.color") == b"\xffgreen"


def test_owners_are_roots_unless_they_are_asked_for_and_powers_go_with_them(pycore: Command) -> None:
    inside(pycore, "echo x > /data/file; chown 12:34 /data/file; chmod 4755 /data/file")
    pycore("cp", "t:/data/file", "plain")
    pycore("cp", "-a", "t:/data/file", "kept")
    plain, kept = ((pycore.directory / name).stat() for name in ("plain", "kept"))
    assert (plain.st_uid, plain.st_gid, plain.st_mode & 0o7777) == (0, 0, 0o755)
    assert (kept.st_uid, kept.st_gid, kept.st_mode & 0o7777) == (12, 34, 0o4755)
    pycore("cp", "kept", "t:/data/a")
    pycore("cp", "-a", "kept", "t:/data/b")
    assert inside(pycore, "stat -c '%u %g %a' /data/a /data/b") == "0 0 755\n12 34 4755\n"


def test_links_are_copied_or_followed(pycore: Command) -> None:
    inside(pycore, "ln -s /etc/secret /data/link; ln -s /etc /data/dir")
    pycore("cp", "t:/data/link", "link")
    assert os.readlink(pycore.directory / "link") == "/etc/secret"
    pycore("cp", "-L", "t:/data/link", "file")
    assert (pycore.directory / "file").read_text() == "the container's\n"
    pycore("cp", "t:/data/dir/", "etc")  # the slash asks for what it leads to
    assert (pycore.directory / "etc" / "secret").read_text() == "the container's\n"


def test_streams(pycore: Command) -> None:
    inside(pycore, "mkdir /data/d; echo one > /data/d/file")
    process = raw(pycore, "cp", "t:/data/d", "-")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.getnames() == ["d", "d/file"]
    for mode in ("w", "w:gz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo("sub/file")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"two\n"))
        process = raw(pycore, "cp", "-", "t:/data")
        process.communicate(stream.getvalue(), timeout=30)
        assert process.returncode == 0
        assert inside(pycore, "cat /data/sub/file; rm -r /data/sub") == "two\n"
    process = pycore.popen("cp", "-", "t:/data", stdin=subprocess.PIPE)
    _, error = process.communicate("garbage" * 1000, timeout=30)
    assert process.returncode == 1
    assert "no tar stream" in error
    assert "not a directory" in pycore.fails("cp", "-", "t:/etc/secret")


def test_a_container_that_has_stopped_or_waits_or_is_paused(pycore: Command) -> None:
    inside(pycore, "echo one > /data/file")
    pycore("pause", "t")
    pycore("cp", "t:/data/file", "paused")
    pycore("unpause", "t")
    pycore("kill", "t")
    pycore("wait", "t")
    pycore("cp", "t:/data/file", "stopped")
    assert (pycore.directory / "paused").read_text() == (pycore.directory / "stopped").read_text() == "one\n"
    pycore("cp", "stopped", "t:/data/put")
    assert "Read-only file system" in pycore.fails("cp", "stopped", "t:/usr/x")
    mounts = Path("/proc/mounts").read_text()
    pycore("start", "t")
    assert inside(pycore, "cat /data/put") == "one\n"
    assert str(pycore.data_dir) not in mounts


def test_a_container_with_ids_of_its_own(pycore: Command) -> None:
    pycore("rm", "-f", "t")
    pycore("run", "-d", "--name", "t", "--network", "none", "--userns", "auto", "host", "sleep", "1000")
    (pycore.directory / "file").write_text("x")
    for _ in range(2):  # while it runs, then while it does not
        pycore("cp", "file", "t:/var/tmp/")
        pycore("cp", "t:/var/tmp/file", "back")
        assert (pycore.directory / "back").stat().st_uid == 0
        pycore.run("kill", "t")
        pycore("wait", "t")
    pycore("start", "t")
    assert inside(pycore, "stat -c %u /var/tmp/file") == "0\n"


def test_links_that_lead_out_lead_nowhere(pycore: Command) -> None:
    """Wherever a link of the container says it leads: it is the container's own root that it starts at."""
    here = pycore.directory
    secret = here / "secret"
    secret.write_text("the host's\n")
    up = "/".join([".."] * 12)
    inside(
        pycore, f"cd /data; ln -s {secret} file; ln -s {here} dir; ln -s {up}{secret} up; ln -s /proc/self/root root"
    )
    inside(pycore, f"cd /data; ln -s /proc/1/root{secret} one; ln -s {up}/etc etc")
    for name in ("file", "up", "one", "dir/secret", f"root{secret}", f"{up}{secret}"):
        pycore.fails("cp", "-L", f"t:/data/{name}", "stolen")
        assert not (here / "stolen").exists()
    pycore("cp", "t:/data/etc/secret", "own")
    assert (here / "own").read_text() == "the container's\n"
    (here / "mine").write_text("mine\n")
    pycore("cp", "mine", "t:/data/etc/secret")
    assert inside(pycore, "cat /etc/secret") == "mine\n"
    for name in ("file", "up", "dir/secret"):
        pycore.run("cp", "mine", f"t:/data/{name}")
    assert secret.read_text() == "the host's\n"
    assert not (here / "dir").exists()


def test_a_link_that_is_swapped_while_it_is_copied(pycore: Command) -> None:
    """A directory that turns into a link to the host's and back, all the time."""
    here = pycore.directory
    (here / "prey").mkdir()
    (here / "prey" / "secret").write_text("the host's\n")
    loop = (
        f"mkdir -p /data/d/a /data/b; echo mild > /data/d/a/file; ln -s {here}/prey /data/c; echo ready;"
        " while :; do mv /data/d/a /data/b/a; mv /data/c /data/d/a; mv /data/d/a /data/c; mv /data/b/a /data/d/a; done"
    )
    process = pycore.popen("exec", "t", "sh", "-c", loop)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    (here / "load").mkdir()
    (here / "load" / "planted").write_text("planted")
    for number in range(15):
        pycore.run("cp", "t:/data/d", f"out{number}")
        pycore.run("cp", "load/.", "t:/data/d/a")
    pycore("rm", "-f", "t")  # the loop with it
    process.communicate()
    assert sorted(os.listdir(here / "prey")) == ["secret"]
    assert list(here.glob("out*/**/secret")) == []


HOSTILE = {
    "above": [("d", "dir", ""), ("d/../../evil", "file", "")],
    "absolute": [("d", "dir", ""), ("/evil", "file", "")],
    "beside": [("d", "dir", ""), ("evil", "file", "")],
    "through a link": [("d", "dir", ""), ("d/a", "link", "/"), ("d/a/evil", "file", "")],
    "through a link upwards": [("d", "dir", ""), ("d/a", "link", ".."), ("d/a/evil", "file", "")],
    "by a hard link": [("d", "dir", ""), ("d/evil", "hard", "victim")],
    "by a hard link upwards": [("d", "dir", ""), ("d/evil", "hard", "d/../victim")],
    "over a link": [("d", "dir", ""), ("d/a", "link", "../victim"), ("d/a", "file", "")],
    "no directory": [("d", "file", ""), ("d/x", "file", "")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_stream_makes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    """The end on the host, given what no pack of ours would send."""
    kinds = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, kind, link in HOSTILE[name]:
            member = tarfile.TarInfo(path)
            member.type, member.linkname, member.mode = kinds[kind], link, 0o755
            tar.addfile(member)
    stream.seek(0)
    tmp_path = tmp_path / "place"
    tmp_path.mkdir()
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "victim").write_text("whole")
    with contextlib.suppress(PycoreError, OSError):
        Unpacker(str(tmp_path / "to"), (0, 0)).unpack(stream)
    assert sorted(os.listdir(tmp_path)) == ["to", "victim"]
    assert set(os.listdir(tmp_path / "to")) <= {"d", "victim"}
    for victim in (tmp_path / "victim", tmp_path / "to" / "victim"):
        assert (victim.read_text(), victim.stat().st_nlink) == ("whole", 1)
    assert not os.path.exists("/evil")


def test_what_a_container_pretends_to_be_huge_costs_nothing(pycore: Command) -> None:
    inside(pycore, "truncate -s 100T /data/huge || truncate -s 15T /data/huge; truncate -s 15T /mem/huge")
    assert "refused" in pycore.fails("cp", "t:/mem/huge", "huge")
    assert (pycore.directory / "image").exists()


def test_devices_and_sockets_are_left_out(pycore: Command) -> None:
    inside(pycore, "mkdir /data/d; mknod /data/d/null c 1 3; mkfifo /data/d/pipe")
    done = pycore.run("cp", "t:/data/d", ".")
    assert done.status == 0
    assert "d/null: a device or a socket: left out" in done.err
    assert os.listdir(pycore.directory / "d") == ["pipe"]


def test_what_the_kernel_shows_is_not_copied_with_the_whole(pycore: Command) -> None:
    inside(pycore, "mkdir -p /data/d/proc; echo x > /data/d/file")
    pycore("exec", "--privileged", "t", "mount", "-t", "proc", "proc", "/data/d/proc")
    pycore("cp", "t:/data/d", ".")
    assert os.listdir(pycore.directory / "d" / "proc") == []
    assert (pycore.directory / "d" / "file").read_text() == "x\n"


def test_a_copy_that_is_interrupted_leaves_no_process(pycore: Command) -> None:
    inside(pycore, "yes | head -c 50000000 > /mem/big")
    process = raw(pycore, "cp", "t:/mem/big", "-")
    assert process.stdout
    assert process.stdout.read(10)
    process.terminate()
    process.wait(30)
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream
        stream.close()
    until(lambda: not _children_of_spawner(pycore) - {pycore.json("ps")[0]["pid"]})


def _children_of_spawner(pycore: Command) -> set[int]:
    (socket,) = (pycore.run_dir / "spawners").glob("*.sock")
    children = Path(f"/proc/{socket.stem}/task/{socket.stem}/children").read_text()
    return {int(pid) for pid in children.split()}


def test_it_says_how_much_unless_it_is_to_be_quiet(pycore: Command) -> None:
    assert pycore.run("cp", "t:/etc/secret", ".").err == "copied 16 bytes\n"
    assert pycore.run("cp", "-q", "t:/etc/secret", ".").err == ""
