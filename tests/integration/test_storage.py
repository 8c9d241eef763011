"""What a container's file system is, seen from inside and from the host."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.image import make_root
from pycore.engine import Engine
from pycore.errors import PycoreError, SpecError, StartError
from pycore.linux.kernel import Kernel
from pycore.plan import Kind

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

PROGRAMS = ("sh", "cat", "ls", "id", "touch", "mkdir", "rm", "stat", "ln", "dd")
_numbers = itertools.count(1)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "run", tmp_path / "data") as engine:
        yield engine
        for app in {record.app for record in engine.containers()}:
            engine.down(app)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small root: a few programs of this host with their libraries."""
    root = make_root(tmp_path_factory.mktemp("rootfs") / "root", PROGRAMS)
    (root / "etc/motd").write_text("from the image\n")
    return root


@pytest.fixture(scope="module")
def tarball(rootfs: Path) -> Path:
    archive = rootfs.parent / f"{rootfs.name}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(rootfs, ".")
    return archive


Run = Callable[..., str]


@pytest.fixture
def run(engine: Engine) -> Run:
    """``run("cat /x", "storage.read_only = true", image="/srv")``: what a script says, errors included."""

    def do(script: str, *fields: str, image: object = "host", app: str = "", tables: str = "") -> str:
        name = app or f"storage{next(_numbers)}"
        engine.apply(engine.load_text(spec(name, script, *fields, image=image, tables=tables), environment={}))
        engine.wait(f"{name}/c", 20)
        return b"".join(chunk.data for chunk in engine.logs(f"{name}/c")).decode()

    return do


def spec(name: str, script: str, *fields: str, image: object = "host", tables: str = "") -> str:
    lines = [f'name = "{name}"', "[container.c]", f'image = "{image}"', f"command = ['sh', '-c', '''{script}''']"]
    return "\n".join([*lines, 'network.driver = "none"', *fields, tables])


DRIVERS = pytest.mark.parametrize("driver", ["overlayfs", "vfs"])


# -- the root ------------------------------------------------------------------------------------------------


@DRIVERS
@pytest.mark.parametrize("kind", ["directory", "tar"])
def test_an_image_is_the_root_and_stays_as_it_is(run: Run, rootfs: Path, tarball: Path, driver: str, kind: str) -> None:
    before = subprocess.run(["find", rootfs, "-ls"], capture_output=True, check=True).stdout
    output = run(
        "cat /etc/motd; echo changed > /etc/motd; rm /bin/ln; touch /new; cat /etc/motd; ls /bin/ln /new; ls /usr",
        f'storage.driver = "{driver}"',
        image=rootfs if kind == "directory" else tarball,
    )
    assert output.splitlines()[:2] == ["from the image", "changed"]
    assert "/new" in output
    assert "/bin/ln'" in output
    assert subprocess.run(["find", rootfs, "-ls"], capture_output=True, check=True).stdout == before


def test_the_hosts_root_is_copied_on_write(run: Run) -> None:
    name = f"/etc/pycore-test-{os.getpid()}"
    output = run(f"echo inside > {name}; cat {name}; rm /etc/passwd; ls /etc/passwd")
    assert output.startswith("inside\n")
    assert "No such file" in output
    assert not os.path.exists(name)
    assert os.path.exists("/etc/passwd")


@DRIVERS
def test_a_read_only_root(run: Run, rootfs: Path, driver: str) -> None:
    output = run(
        "touch /x; rm /bin/ls; touch /data/x /mem/x && echo both",
        f'storage.driver = "{driver}"',
        "storage.read_only = true",
        'storage.volumes = ["data:/data"]',
        'storage.tmpfs = ["/mem"]',
        image=rootfs,
        tables="[volume.data]",
    )
    assert output.count("Read-only file system") == 2
    assert "both" in output


@DRIVERS
def test_a_restart_keeps_the_layer(engine: Engine, run: Run, rootfs: Path, driver: str) -> None:
    fields = [f'storage.driver = "{driver}"']
    run("echo kept > /kept", *fields, image=rootfs, app="again")
    output = run("cat /kept; touch /x", *fields, "storage.read_only = true", image=rootfs, app="again")
    assert output == "kept\ntouch: cannot touch '/x': Read-only file system\n"


@DRIVERS
def test_devices_of_an_image_are_without_effect(run: Run, rootfs: Path, driver: str) -> None:
    output = run(
        "ls -l /zero; cat /zero",
        f'storage.driver = "{driver}"',
        image=_with(rootfs, lambda root: os.mknod(root / "zero", 0o020666, os.makedev(1, 5))),
    )
    assert "Permission denied" in output if driver == "overlayfs" else "No such file" in output


def _with(rootfs: Path, change: Callable[[Path], object]) -> Path:
    """A copy of the small root with something changed."""
    root = rootfs.parent / f"changed{next(_numbers)}"
    Kernel().copy_layers([str(rootfs)], str(root))
    change(root)
    return root


def test_pycores_own_is_hidden(run: Run, tmp_path: Path) -> None:
    run("echo secret > /mine; echo secret > /data/mine", 'storage.volumes = ["data:/data"]', tables="[volume.data]")
    output = run(f"ls -a {tmp_path}; ls {tmp_path}/data {tmp_path}/run; mkdir {tmp_path}/data; ls -a {tmp_path}/data")
    assert output.splitlines()[:2] == [".", ".."]
    assert output.count("No such file") == 2
    assert output.splitlines()[-2:] == [".", ".."]


def test_a_socket_of_the_host_leads_nowhere(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        connect = tmp_path / "connect.py"
        connect.write_text(f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})")
        assert subprocess.run(["python3", connect], check=False).returncode == 0
        assert "ConnectionRefusedError" in run(f"python3 {connect}")


def test_mountinfo_tells_nothing_of_the_hosts_directories(run: Run, rootfs: Path, tmp_path: Path) -> None:
    output = run("cat /proc/self/mountinfo", image=rootfs)
    root = next(line for line in output.splitlines() if " / / " in line)
    assert "overlay" in root
    assert "nodev" in root
    assert str(tmp_path) not in root


@pytest.mark.parametrize("name", ["a,b:c", "back\\slash", "x" * 250])
def test_paths_that_mean_something_to_overlayfs(tmp_path: Path, rootfs: Path, name: str) -> None:
    place = tmp_path / name
    shutil.copytree(rootfs, place / "root", symlinks=True)
    image = str(place / "root").replace("\\", "\\\\")
    with Engine(tmp_path / "run", place / "data") as engine:
        engine.apply(engine.load_text(spec("odd", "cat /etc/motd", image=image), environment={}))
        try:
            assert engine.wait("odd/c", 20) == 0
        finally:
            engine.down("odd")


@DRIVERS
@pytest.mark.parametrize("kind", ["directory", "tar"])
def test_in_a_user_namespace_root_owns_its_image_and_what_it_makes(
    engine: Engine, run: Run, rootfs: Path, tarball: Path, driver: str, kind: str
) -> None:
    before = subprocess.run(["find", rootfs, "-ls"], capture_output=True, check=True).stdout
    output = run(
        'touch /x /data/x; stat -c "%n %u" /x /data/x /bin/ls',
        f'storage.driver = "{driver}"',
        'isolation.userns = "300000:65536"',
        'storage.volumes = ["data:/data"]',
        image=rootfs if kind == "directory" else tarball,
        tables="[volume.data]",
    )
    assert output.splitlines() == ["/x 0", "/data/x 0", "/bin/ls 0"]
    (made,) = (engine.data_dir / "containers").glob("*/*/*/x")
    assert made.stat().st_uid == 300000
    assert subprocess.run(["find", rootfs, "-ls"], capture_output=True, check=True).stdout == before


def test_in_a_user_namespace_the_hosts_files_are_not_roots(run: Run) -> None:
    output = run("stat -c %u /etc/shadow; cat /etc/shadow", 'isolation.userns = "300000:65536"')
    assert output.startswith("65534\n")
    assert "Permission denied" in output


def test_only_the_hosts_root_gets_to_a_layer(engine: Engine, run: Run, rootfs: Path, tarball: Path) -> None:
    run("true", 'storage.volumes = ["data:/data"]', image=tarball, tables="[volume.data]")
    run("true", 'storage.driver = "vfs"', image=rootfs)
    closed = [path for below in ("containers/*/*/*/", "images/*", "volumes/*") for path in engine.data_dir.glob(below)]
    assert {path.name for path in closed} > {"upper", "root"}
    os.chmod(engine.data_dir.parent, 0o755)
    for path in closed:
        if "log" not in path.parts:
            probe = subprocess.run(["stat", path], user=65534, group=65534, extra_groups=[], capture_output=True)
            assert probe.returncode, path


# -- where the disk cannot hold a layer -----------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """A directory on an overlay, as the whole disk is inside another container."""
    for name in ("lower", "upper", "work", "overlay"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "overlay"], check=True)
    try:
        yield tmp_path / "overlay"
    finally:
        subprocess.run(["umount", "-l", tmp_path / "overlay"], check=True)


def test_a_layer_in_memory(nested: Path) -> None:
    with Engine(nested / "run", nested / "data") as engine:
        script = f"touch /new && ls /new; ls {nested}/data; stat -f -c %T /"
        app = engine.load_text(spec("memory", script), environment={})
        (action,) = engine.plan(app).actions
        assert any("in memory" in operation.explain() for operation in action.description.enter)
        engine.apply(app)
        try:
            assert engine.wait("memory/c", 20) == 0
            output = b"".join(chunk.data for chunk in engine.logs("memory/c")).decode()
            assert output.startswith("/new\n")
            assert "No such file" in output
            assert list(engine.data_dir.glob("containers/*/layer")) == []
        finally:
            engine.down("memory")


def test_in_a_user_namespace_a_layer_in_memory_has_the_images_owners(nested: Path, rootfs: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    script = """
        stat -c "%u" /etc/motd /etc /; echo changed > /etc/motd && cat /etc/motd; touch /x && stat -c "%u" /x
        dd if=/dev/zero of=/big bs=1M count=3 2>&1
    """
    fields = ('isolation.userns = "300000:65536"', 'storage.size = "2M"')
    with Engine(nested / "run", nested / "data") as engine:
        engine.apply(engine.load_text(spec("memory", script, *fields, image=rootfs), environment={}))
        try:
            engine.wait("memory/c", 20)
            output = b"".join(chunk.data for chunk in engine.logs("memory/c")).decode()
            assert output.split()[:5] == ["0", "0", "0", "changed", "0"]
            assert "No space left" in output
        finally:
            engine.down("memory")
    assert (rootfs / "etc/motd").read_text() == "from the image\n"
    assert Path("/proc/self/mountinfo").read_text() == mounts


# -- images that are tar files ---------------------------------------------------------------------------------


def kept(engine: Engine) -> dict[str, int]:
    """How much there is of each kind in the store of images."""
    kinds = {"blobs": "blobs/sha256", "layers": "layers", "ingest": "ingest", "holds": "holds"}
    return {kind: len(list((engine.data_dir / "images" / place).glob("*"))) for kind, place in kinds.items()}


def test_a_tar_file_is_unpacked_once_and_held_by_its_users(engine: Engine, run: Run, tarball: Path) -> None:
    for app in ("one", "two"):
        assert run("cat /etc/motd", image=tarball, app=app) == "from the image\n"
    assert kept(engine) == {"blobs": 3, "layers": 1, "ingest": 0, "holds": 2}
    engine.down("one")
    engine.down("two")
    assert kept(engine) == {"blobs": 3, "layers": 1, "ingest": 0, "holds": 0}


def test_a_tar_file_that_has_changed_is_another_image(engine: Engine, tarball: Path, tmp_path: Path) -> None:
    archive = Path(shutil.copy(tarball, tmp_path / "image.tar.gz"))
    app = engine.load_text(spec("changing", "cat /etc/motd", image=archive), environment={})
    engine.apply(app)
    assert engine.plan(app).actions == ()
    shutil.unpack_archive(archive, tmp_path / "root", filter="fully_trusted")
    (tmp_path / "root/etc/motd").write_text("changed\n")
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path / "root", "."], check=True)
    (action,) = engine.plan(app).actions
    assert (action.kind, [reason.what for reason in action.reasons]) == (Kind.RECREATE, ["image"])
    engine.apply(app)
    assert engine.wait("changing/c", 20) == 0
    assert b"".join(chunk.data for chunk in engine.logs("changing/c")) == b"changed\n"
    engine.down("changing")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize(("driver", "kind"), [("overlayfs", "tar"), ("vfs", "directory"), ("vfs", "tar")])
def test_a_full_disk(tmp_path: Path, small_disk: Path, rootfs: Path, tarball: Path, driver: str, kind: str) -> None:
    image = rootfs if kind == "directory" else tarball
    with Engine(tmp_path / "run", small_disk / "data") as engine:
        app = engine.load_text(spec("full", "true", f'storage.driver = "{driver}"', image=image), environment={})
        with pytest.raises(PycoreError, match="No space left on device") as caught:
            engine.apply(app)
        assert str(image) in "\n".join([caught.value.message, *getattr(caught.value, "__notes__", [])])
        assert engine.containers() == []
        assert set(kept(engine).values()) == {0}
    assert list((small_disk / "data/containers").glob("*")) == []


def test_a_damaged_tar_file(engine: Engine, tarball: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes(tarball.read_bytes()[:5000])
    with pytest.raises(PycoreError, match=r"cut\.tar is damaged"):
        engine.apply(engine.load_text(spec("cut", "true", image=tmp_path / "cut.tar"), environment={}))
    assert set(kept(engine).values()) == {0}
    assert engine.containers() == []


# -- volumes ---------------------------------------------------------------------------------------------------


def test_a_named_volume_outlives_its_containers(engine: Engine, run: Run) -> None:
    volumes = 'storage.volumes = ["data:/data"]'
    run("echo first > /data/x", volumes, app="keeper", tables="[volume.data]")
    engine.down("keeper")
    assert run("cat /data/x", volumes, app="keeper", tables="[volume.data]") == "first\n"
    assert "No such file" in run("cat /data/x", volumes, app="other", tables="[volume.data]")


def test_volumes_of_one_name_are_shared(run: Run) -> None:
    volumes, tables = 'storage.volumes = ["data:/data"]', '[volume.data]\nname = "common"'
    run("echo first > /data/x", volumes, tables=tables)
    assert run("cat /data/x", volumes, tables=tables) == "first\n"


def test_paths_of_the_host(run: Run, rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "site/deeper").mkdir(parents=True)
    (tmp_path / "site/page").write_text("page\n")
    (tmp_path / "file").write_text("file\n")
    output = run(
        "cat /srv/page /a/b/file; touch /srv/x; touch /srv/deeper/x; touch /rw/x; echo more >> /a/b/file",
        f'storage.volumes = ["{tmp_path}/site:/srv:ro", "{tmp_path}/file:/a/b/file", "{tmp_path}/site:/rw"]',
        image=rootfs,
    )
    assert output.startswith("page\nfile\n")
    assert output.count("Read-only file system") == 2
    assert (tmp_path / "site/x").exists()
    assert (tmp_path / "file").read_text() == "file\nmore\n"


def test_what_is_mounted_below_a_path_is_read_only_too(run: Run, small_disk: Path) -> None:
    volume = f'storage.volumes = ["{small_disk.parent}:/srv:ro"]'
    assert "Read-only file system" in run("touch /srv/small/x", volume)
    assert os.listdir(small_disk) == []


def test_devices_and_setuid_bits_of_a_volume_are_without_effect(run: Run, rootfs: Path, tmp_path: Path) -> None:
    os.mknod(tmp_path / "zero", 0o020666, os.makedev(1, 5))
    shutil.copy("/bin/cat", tmp_path / "cat")
    output = run("cat /data/zero; cat /proc/self/mountinfo", f'storage.volumes = ["{tmp_path}:/data"]', image=rootfs)
    assert "Permission denied" in output
    (line,) = (line for line in output.splitlines() if " /data " in line)
    assert "nosuid,nodev" in line


def test_inner_places_are_mounted_into_outer_ones(run: Run, rootfs: Path, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    volumes = f'storage.volumes = ["{tmp_path}/inner:/srv/a/b", "{tmp_path}/outer:/srv"]'
    assert run("ls /srv /srv/a/b", volumes, 'storage.tmpfs = ["/srv/a"]', image=rootfs).split() == [
        "/srv:", "a", "outer", "/srv/a/b:", "inner",
    ]  # fmt: skip


def test_memory(run: Run, rootfs: Path) -> None:
    output = run(
        "stat -c %a /one /two; stat -f -c %T /one; cat /proc/self/mountinfo",
        'storage.tmpfs = ["/one:size=1M,mode=750", "/two"]',
        image=rootfs,
    )
    assert output.splitlines()[:3] == ["750", "1777", "tmpfs"]
    one, two = (next(line for line in output.splitlines() if f" {place} " in line) for place in ("/one", "/two"))
    assert "size=1024k" in one
    assert "nosuid,nodev,noexec" in two


@pytest.mark.parametrize("text", ["{victim}", "../../../../../../../../..{victim}", "/proc/self/cwd{victim}", "/etc"])
@pytest.mark.parametrize("driver", ["overlayfs", "vfs"])
def test_a_link_in_the_image_at_the_place_of_a_volume(
    run: Run, rootfs: Path, tmp_path: Path, driver: str, text: str
) -> None:
    """The volume lands inside the container, or the start is refused: never on the host's own directory."""
    victim, source = tmp_path / "victim", tmp_path / "source"
    victim.mkdir()
    source.mkdir()
    (source / "from the volume").touch()
    image = _with(rootfs, lambda root: (root / "data").symlink_to(text.format(victim=victim)))
    before = mounted(tmp_path)
    fields = [f'storage.driver = "{driver}"', f'storage.volumes = ["{source}:/data"]']
    if text == "/etc":
        assert "from the volume" in run("ls /etc /data", *fields, image=image)
    else:
        with pytest.raises(StartError, match="bind"):
            run("ls /data", *fields, image=image)
    assert os.listdir(victim) == []
    assert mounted(tmp_path) == before


def mounted(what: Path) -> list[str]:
    """Mounts of the host that are in a directory, or show a part of it elsewhere."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(what) in line]


def test_what_is_missing_on_the_host_is_said_before_anything_is_done(engine: Engine, tmp_path: Path) -> None:
    text = spec("bad", "true", f'storage.volumes = ["{tmp_path}/nothing:/x"]', image="./nothing")
    with pytest.raises(SpecError) as caught:
        engine.apply(engine.load_text(text, environment={}))
    assert [problem.path for problem in caught.value.problems] == [
        ("container", "c", "image"),
        ("container", "c", "storage", "volumes", 0),
    ]
    assert engine.containers() == []
    assert not (engine.data_dir / "images").exists()
