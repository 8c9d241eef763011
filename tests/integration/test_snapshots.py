"""Images of many layers, and what containers change over them, on the real kernel with both drivers."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from bench.image import make_root
from pycore.engine import Engine
from pycore.errors import PycoreError, SpecError
from pycore.hookspecs import Found, Host, Snapshot, hookimpl
from pycore.image import Image
from pycore.linux import layered, overlay
from pycore.linux.kernel import Kernel
from pycore.linux.layered import Change
from pycore.plugins import load_plugins
from pycore.spec import Container, Process

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

PROGRAMS = ("sh", "cat", "ls", "touch", "mkdir", "rm", "mv", "ln", "stat", "chmod", "chown", "dd", "sync")
DRIVERS = pytest.mark.parametrize("driver", ["overlayfs", "vfs"])
USERNS = 'isolation.userns = "300000:65536"'
_numbers = itertools.count(1)


class Layered:
    """Images named ``layered:N``: whatever layers a test has put there."""

    def __init__(self) -> None:
        self.images: dict[str, tuple[str, ...]] = {}

    @hookimpl
    def pycore_image(self, container: Container, host: Host) -> Found | None:
        layers = self.images.get(container[Process].image)
        return Found(Image(container[Process].image, layers=layers)) if layers else None


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_root(tmp_path_factory.mktemp("rootfs") / "root", PROGRAMS)
    (root / "etc/motd").write_text("base\n")
    for name in ("gone", "kept"):
        (root / "d" / name).mkdir(parents=True)
        (root / "d" / name / "file").write_text(f"{name}\n")
    (root / "hard").write_text("two names\n")
    os.link(root / "hard", root / "hard too")
    return root


@pytest.fixture
def images() -> Layered:
    return Layered()


@pytest.fixture
def engine(tmp_path: Path, images: Layered) -> Iterator[Engine]:
    with Engine(tmp_path / "run", tmp_path / "data", plugins=load_plugins({"a.layered": images})) as engine:
        yield engine
        for app in {record.app for record in engine.containers()}:
            engine.down(app)


class Ran:
    """A container that has ended, what it said, and its files."""

    def __init__(self, engine: Engine, name: str, output: str) -> None:
        self._engine, self._name, self.output = engine, name, output

    @property
    def snapshot(self) -> Snapshot:
        record = self._engine.find(f"{self._name}/c")
        life = self._engine.open()
        return self._engine.plugins.snapshot(life.container(record), life.host())


Run = Callable[..., Ran]


@pytest.fixture
def run(engine: Engine, images: Layered) -> Run:
    """``run("touch /x", layers, 'storage.driver = "vfs"')``, the uppermost layer first."""

    def do(script: str, layers: Sequence[Path], *fields: str, app: str = "") -> Ran:
        name = app or f"snap{next(_numbers)}"
        images.images[f"layered:{name}"] = tuple(map(str, layers))
        lines = [
            f'name = "{name}"',
            "[container.c]",
            f'image = "layered:{name}"',
            f"command = ['sh', '-c', '''{script}''']",
        ]
        text = "\n".join([*lines, 'network.driver = "none"', *fields])
        engine.apply(engine.load_text(text, environment={}))
        engine.wait(f"{name}/c", 30)
        output = b"".join(chunk.data for chunk in engine.logs(f"{name}/c")).decode()
        return Ran(engine, name, output)

    return do


@pytest.fixture
def layers(tmp_path: Path, rootfs: Path) -> list[Path]:
    """Two layers over a root: one that takes away and hides, one that adds."""
    middle, upper = tmp_path / "middle", tmp_path / "upper"
    (middle / "d/gone").mkdir(parents=True)
    os.setxattr(middle / "d/gone", layered.OPAQUE, b"y")
    (middle / "d/gone/new").write_text("new\n")
    os.mknod(middle / "hard", stat.S_IFCHR, 0)
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/motd").write_text("upper\n")
    (upper / "etc/mine").write_text("1000\n")
    os.chown(upper / "etc/mine", 1000, 33)
    (upper / "etc/mine").chmod(0o4755)
    return [upper, middle, rootfs]


# -- layers ----------------------------------------------------------------------------------------------------


@DRIVERS
@pytest.mark.parametrize("userns", ["", USERNS])
def test_layers_are_one_root(run: Run, layers: list[Path], driver: str, userns: str) -> None:
    before = [subprocess.run(["find", layer, "-ls"], capture_output=True, check=True).stdout for layer in layers]
    ran = run(
        """
        cat /etc/motd; ls /d/gone /d/kept; ls /hard 2>&1; cat "/hard too"
        stat -c "%u:%g %a" /etc/mine /etc; echo x > /etc/mine
        """,
        layers,
        f'storage.driver = "{driver}"',
        userns,
    )
    said, _, rest = ran.output.partition("ls: ")
    assert said.split() == ["upper", "/d/gone:", "new", "/d/kept:", "file"]
    assert rest.split("\n")[1:] == ["two names", "1000:33 4755", "0:0 755", ""]
    assert before == [
        subprocess.run(["find", layer, "-ls"], capture_output=True, check=True).stdout for layer in layers
    ]


def many(tmp_path: Path, rootfs: Path, count: int) -> list[Path]:
    found: list[Path] = []
    for number in range(count):
        layer = tmp_path / "many" / str(number)
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text(str(number))
        found.append(layer)
    return [*found, rootfs]


@pytest.mark.parametrize("userns", ["", USERNS])
def test_more_layers_than_a_page_has_room_for(run: Run, tmp_path: Path, rootfs: Path, userns: str) -> None:
    ran = run("cat /file0 /file299; set -- /file*; echo .$#", many(tmp_path, rootfs, 300), userns)
    assert ran.output == "0299.300\n"


def test_vfs_takes_any_number(run: Run, tmp_path: Path, rootfs: Path) -> None:
    ran = run("cat /file0 /file599; set -- /file*; echo .$#", many(tmp_path, rootfs, 600), 'storage.driver = "vfs"')
    assert ran.output == "0599.600\n"


def test_mountinfo_tells_nothing_of_where_layers_are(run: Run, layers: list[Path]) -> None:
    output = run("cat /proc/self/mountinfo", layers).output
    root = next(line for line in output.splitlines() if " / / " in line)
    assert not [layer for layer in layers if str(layer) in root]


def test_more_layers_than_the_kernel_takes(run: Run, tmp_path: Path, rootfs: Path) -> None:
    with pytest.raises(PycoreError, match="501 layers, and overlayfs takes 500"):
        run("true", many(tmp_path, rootfs, 500))


@pytest.mark.parametrize("owner", [0, 300000])
@pytest.mark.parametrize("memory", [False, True])
def test_kernels_that_take_all_layers_at_once(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch, owner: int, memory: bool
) -> None:
    """As Linux before 6.7 takes them, and before 6.15 those that are mounted in no place, a layer in memory too."""
    kernel, here, mounts = Kernel(), os.getcwd(), Path("/proc/self/mountinfo").read_text()

    def refuse(lower: Sequence[int], layer: int, volatile: bool) -> int:
        raise overlay._TooOld

    monkeypatch.setattr(overlay, "_one_by_one", refuse)
    with contextlib.ExitStack() as opened:

        def kept(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        fds = [kept(kernel.mount_clone(str(layer), recursive=False)) for layer in many(tmp_path, rootfs, 499)]
        for tree in fds if owner else ():
            kernel.mount_owners(tree, f"0 {owner} 65536\n", f"0 {owner} 65536\n", recursive=False)
        (tmp_path / "layer").mkdir()
        layer = kept(kernel.mount_new("tmpfs", {}) if memory else os.open(tmp_path / "layer", os.O_PATH))
        own = Path(f"/proc/self/fd/{layer}")
        for name in ("upper", "work"):
            (own / name).mkdir()
        mounted = kept(overlay.mount(fds, layer))
        root = Path(f"/proc/self/fd/{mounted}")
        assert {f"file{number}" for number in range(499)} < set(os.listdir(root))
        assert (root / "file498").stat().st_uid == owner
        (root / "file498").unlink()
        assert layered.is_whiteout((own / "upper/file498").lstat())
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert os.getcwd() == here


# -- copy-up ---------------------------------------------------------------------------------------------------


def test_a_file_is_copied_up_when_it_is_written_to(run: Run, rootfs: Path) -> None:
    """As overlayfs.rst has it: names of one file come apart, what is deleted is hidden, directories move by copying."""
    ran = run(
        """
        exec 3< /etc/motd
        echo changed >> /etc/motd
        cat /etc/motd; cat <&3
        chmod 600 /d/kept/file; stat -c %a /d/kept/file
        echo more >> /hard; cat "/hard too"
        rm -r /d/gone; mkdir /d/gone; ls /d/gone
        mv /d/kept /d/moved && cat /d/moved/file; ls /d
        """,
        [rootfs],
    )
    assert ran.output.split("\n") == [
        "base", "changed", "base", "changed", "600", "two names", "kept", "gone", "moved", "",
    ]  # fmt: skip
    assert (rootfs / "etc/motd").read_text() == "base\n"
    assert (rootfs / "d/kept/file").stat().st_mode & 0o777 == 0o644


# -- what is changed -------------------------------------------------------------------------------------------

CHANGES = """
    echo 1 > /added; mkdir -p /new/deep; echo 2 > /new/deep/file; ln -s nowhere /new/link; ln /added /new/hard
    echo more >> /etc/motd
    rm -r /d/gone
    chmod 700 /d/kept
    rm "/hard too"; mkdir "/hard too"
    chown 7:8 /new/deep/file; chmod 4755 /new/deep/file
"""


@DRIVERS
@pytest.mark.parametrize("userns", ["", USERNS])
def test_changes_and_their_commit(run: Run, rootfs: Path, tmp_path: Path, driver: str, userns: str) -> None:
    fields = [f'storage.driver = "{driver}"', userns]
    ran = run(CHANGES, [rootfs], *fields)
    assert ran.output == ""
    letters = {
        "/added": "A", "/d": "C", "/d/gone": "D", "/d/kept": "C", "/etc": "C", "/etc/motd": "C", "/hard too": "C",
        "/new": "A", "/new/deep": "A", "/new/deep/file": "A", "/new/hard": "A", "/new/link": "A",
    }  # fmt: skip
    made = {"/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
    assert {each.path: each.kind for each in ran.snapshot.changes() if each.path not in made} == letters
    usage = ran.snapshot.usage()
    assert usage.inodes >= (8 if driver == "overlayfs" else 30)
    assert usage.bytes > 0
    layer = tmp_path / "layer"
    ran.snapshot.commit(str(layer))
    assert layered.is_whiteout((layer / "d/gone").lstat())
    info = (layer / "new/deep/file").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (7, 8, 0o4755)
    assert (layer / "added").samefile(layer / "new/hard")
    assert not (layer / "bin").exists()
    again = run('cat /etc/motd /added; ls /d "/hard too"; stat -c "%u:%g" /new/deep/file', [layer, rootfs], *fields)
    assert again.output.split() == ["base", "more", "1", "/d:", "kept", "/hard", "too:", "7:8"]
    changed = {change.path for change in again.snapshot.changes()}
    assert changed <= made | {"/etc"}


@DRIVERS
@pytest.mark.parametrize("userns", ["", USERNS])
def test_all_files_as_they_are_now(run: Run, layers: list[Path], driver: str, userns: str) -> None:
    ran = run("echo x > /x; rm -r /d/kept", layers, f'storage.driver = "{driver}"', userns)
    with ran.snapshot.view() as path:
        assert Path(path, "etc/motd").read_text() == "upper\n"
        assert os.listdir(f"{path}/d") == ["gone"]
        info = Path(path, "etc/mine").stat()
        assert (info.st_uid, info.st_gid) == (1000, 33)
        assert Path(path, "x").stat().st_uid == 0


def test_of_the_host_pycores_own_is_no_change(engine: Engine, tmp_path: Path) -> None:
    text = 'name = "h"\n[container.c]\nimage = "host"\ncommand = ["touch", "/changed"]\nnetwork.driver = "none"'
    engine.apply(engine.load_text(text, environment={}))
    engine.wait("h/c", 20)
    snapshot = Ran(engine, "h", "").snapshot
    assert Change("/changed", "A") in snapshot.changes()
    assert not [each for each in snapshot.changes() if each.kind == "D"]


# -- limits ----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system that keeps limits for projects."""
    if not shutil.which("mkfs.ext4"):
        pytest.skip("for want of mkfs.ext4 (apt-get install e2fsprogs)")
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", image], check=True)
    place.mkdir()
    done = subprocess.run(["mount", "-o", "loop,prjquota", image, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this host mounts no images: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@DRIVERS
@pytest.mark.parametrize("userns", ["", USERNS])
def test_a_container_takes_no_more_than_its_limit(
    disk: Path, tmp_path: Path, images: Layered, rootfs: Path, driver: str, userns: str
) -> None:
    images.images["layered:q"] = (str(rootfs),)
    write = (
        "dd if=/dev/zero of=/big bs=1M count=60 2>&1; rm -f /big; dd if=/dev/zero of=/small bs=1M count=2 2>/dev/null"
    )

    def spec(size: str, command: str = write) -> str:
        return "\n".join([
            'name = "q"', "[container.c]", 'image = "layered:q"', f"command = ['sh', '-c', '''{command}''']",
            'network.driver = "none"', f'storage.driver = "{driver}"', f'storage.size = "{size}"', userns,
        ])  # fmt: skip

    with Engine(tmp_path / "run", disk / "data", plugins=load_plugins({"a.layered": images})) as engine:
        try:
            engine.apply(engine.load_text(spec("40M"), environment={}))
            engine.wait("q/c", 30)
            said = b"".join(chunk.data for chunk in engine.logs("q/c")).decode()
            assert "Disk quota exceeded" in said or "No space left" in said
            ran = Ran(engine, "q", said)
            assert 2 << 20 <= ran.snapshot.usage().bytes < 40 << 20
            engine.apply(engine.load_text(spec("90M"), environment={}))
            engine.start("q/c")
            engine.wait("q/c", 30)
            assert "60+0 records out" in b"".join(chunk.data for chunk in engine.logs("q/c")).decode()
        finally:
            engine.down("q")


def test_a_limit_that_the_disk_does_not_keep(engine: Engine, rootfs: Path, images: Layered) -> None:
    if engine.kernel.has_quota(str(engine.data_dir)):
        pytest.skip("this disk keeps limits")
    images.images["layered:q"] = (str(rootfs),)
    text = 'name = "q"\n[container.c]\nimage = "layered:q"\ncommand = ["true"]\nstorage.size = "1G"'
    with pytest.raises(SpecError, match="no project quotas"):
        engine.apply(engine.load_text(text, environment={}))


def test_a_volatile_layer(engine: Engine, run: Run, rootfs: Path) -> None:
    ran = run(
        "sync /etc/motd; echo 1 >> /runs; cat /runs; cat /proc/self/mountinfo",
        [rootfs],
        "storage.volatile = true",
        app="v",
    )
    assert "volatile" in next(line for line in ran.output.splitlines() if " / / " in line)
    engine.start("v/c")
    engine.wait("v/c", 20)
    output = b"".join(chunk.data for chunk in engine.logs("v/c")).decode()
    assert "\n1\n1\n" in output
    run("cat /runs", [rootfs], app="v")
    assert b"".join(chunk.data for chunk in engine.logs("v/c")).decode().endswith("1\n1\n")


def test_where_files_cannot_be_shown_as_somebody_elses(run: Run, tmp_path: Path, rootfs: Path) -> None:
    for name in ("upper", "work", "overlay"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={rootfs},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "overlay"], check=True)
    try:
        with pytest.raises(PycoreError, match="its file system cannot show files as somebody else's"):
            run("true", [tmp_path / "overlay"], USERNS)
        assert run("echo yes", [tmp_path / "overlay"]).output == "yes\n"
    finally:
        subprocess.run(["umount", "-l", tmp_path / "overlay"], check=True)
