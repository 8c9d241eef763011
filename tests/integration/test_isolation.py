"""What a container is held back by, seen from inside and proven by trying."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.errors import PycoreError
from pycore_isolation.capabilities import DEFAULT
from pycore_isolation.ops.capabilities import mask

pytestmark = [pytest.mark.root, pytest.mark.needs("libseccomp")]

_numbers = itertools.count(1)


@dataclass
class Ended:
    """A container that has run."""

    status: int | None
    output: str
    name: str

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    base = tmp_path_factory.mktemp("isolation")
    with Engine(base / "run", base / "data") as engine:
        yield engine
        for app in {record.app for record in engine.containers()}:
            engine.down(app)


@pytest.fixture
def run(engine: Engine) -> Run:
    """``run("script", "isolation.user = 'nobody'")``: what a shell script says inside; fields as dotted keys."""
    return lambda script, *fields: run_in(engine, ["sh", "-c", script], *fields)


@pytest.fixture
def python(engine: Engine) -> Run:
    """The same for a Python script."""
    return lambda script, *fields: run_in(engine, ["python3", "-c", textwrap.dedent(script)], *fields)


def spec(command: list[str], *fields: str) -> str:
    words = ", ".join(f"'''{word}'''" for word in command)
    image = [] if any(field.startswith("image") for field in fields) else ['image = "host"']
    lines = [f'name = "isolation{next(_numbers)}"', "[container.c]", *image, f"command = [{words}]"]
    return "\n".join([*lines, 'network.driver = "none"', *fields])


def run_in(engine: Engine, command: list[str], *fields: str) -> Ended:
    app = engine.load_text(spec(command, *fields), environment={})
    engine.apply(app)
    name = f"{app.name}/c"
    status = engine.wait(name, 20)
    return Ended(status, b"".join(chunk.data for chunk in engine.logs(name)).decode(), name)


def status_of(ended: Ended) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in ended.lines)}


# -- powers --------------------------------------------------------------------------------------------------

STATUS = "cat /proc/self/status"


def test_root_has_dockers_capabilities_and_no_way_to_more(run: Run) -> None:
    status = status_of(run(STATUS))
    default = f"{mask(DEFAULT):016x}"
    assert (status["CapEff"], status["CapPrm"], status["CapBnd"]) == (default, default, default)
    assert (status["CapInh"], status["CapAmb"]) == ("0" * 16, "0" * 16)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_another_user_has_none(run: Run) -> None:
    status = status_of(run(STATUS, 'isolation.user = "65534:65534"', 'isolation.group_add = ["7"]'))
    assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
    assert status["Groups"] == "7"
    assert (status["CapEff"], status["CapPrm"]) == ("0" * 16, "0" * 16)
    assert status["CapBnd"] == f"{mask(DEFAULT):016x}"


def test_capabilities_as_asked_for(run: Run) -> None:
    fields = ('isolation.cap_drop = ["ALL"]', 'isolation.cap_add = ["SYS_ADMIN"]')
    status = status_of(run(STATUS, *fields))
    assert status["CapEff"] == status["CapBnd"] == f"{mask(['SYS_ADMIN']):016x}"


def test_without_no_new_privileges_the_filter_is_there_all_the_same(run: Run) -> None:
    status = status_of(run(STATUS, "isolation.no_new_privileges = false", 'isolation.user = "65534"'))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


def test_unconfined(run: Run) -> None:
    assert status_of(run(STATUS, 'isolation.seccomp = "unconfined"'))["Seccomp"] == "0"


def test_a_users_name_is_the_containers_matter(run: Run) -> None:
    ended = run("id -un; echo $HOME", 'isolation.user = "root"')
    assert ended.lines == ["root", "/root"]


def test_a_user_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(PycoreError, match="no user 'nobody-knows' in the container's /etc/passwd"):
        run_in(engine, ["true"], 'isolation.user = "nobody-knows"')


def test_limits_of_the_process(run: Run) -> None:
    limits = "resources.ulimits = { nofile = { soft = 64, hard = 128 }, core = 0 }"
    ended = run("ulimit -n; ulimit -Hn; ulimit -c", limits)
    assert ended.lines == ["64", "128", "0"]


# -- calls ---------------------------------------------------------------------------------------------------

CALLS = """
    import ctypes, errno
    libc = ctypes.CDLL(None, use_errno=True)
    def call(*arguments):
        result = libc.syscall(*(ctypes.c_long(each) for each in arguments))
        print(errno.errorcode[ctypes.get_errno()] if result < 0 else "ok")
    NEWUSER, NEWNS = 0x10000000, 0x20000
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls by their numbers on x86-64")
def test_calls_that_are_not_there(python: Run) -> None:
    ended = python(
        CALLS
        + """
    call(272, NEWUSER)          # unshare
    call(56, NEWUSER | 17, 0)   # clone
    call(435, 0, 0)             # clone3
    call(165, 0, 0, 0, 0, 0)    # mount
    call(250, 0, 0)             # keyctl
    call(41, 38, 5, 0)          # socket(AF_ALG)
    call(41, 1, 1, 0)           # socket(AF_UNIX)
    call(425, 1, 0)             # io_uring_setup
    """
    )
    assert ended.lines == ["EPERM", "EPERM", "ENOSYS", "EPERM", "EPERM", "ENOSYS", "ok", "EPERM"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls by their numbers on x86-64")
def test_calls_that_a_capability_brings(python: Run) -> None:
    assert python(f"{CALLS}    call(272, NEWNS)", 'isolation.cap_add = ["SYS_ADMIN"]').lines == ["ok"]


# -- what it sees --------------------------------------------------------------------------------------------


def test_namespaces_of_its_own(run: Run) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    ended = run("readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in kinds))
    for kind, line in zip(kinds, ended.lines, strict=True):
        assert line.startswith(f"{kind}:")
        assert line != os.readlink(f"/proc/self/ns/{kind}")


def test_its_names_and_processes(run: Run) -> None:
    assert run("hostname; echo $$$$; cut -d: -f3 /proc/self/cgroup | sort -u").lines == ["c", "1", "/"]
    assert run("hostname", 'isolation.hostname = "shop.example"').lines == ["shop.example"]


def test_devices(run: Run) -> None:
    assert run("ls -C -w 200 /dev").output.split() == (
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()  # noqa: SIM905
    )
    assert run("cd /dev; readlink fd stdin ptmx").lines == ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]
    assert run("head -c 3 /dev/zero | wc -c; echo x > /dev/null && echo written").lines == ["3", "written"]


def test_a_terminal_of_its_own(python: Run) -> None:
    assert python("import os; print(os.ttyname(os.openpty()[1]))").lines == ["/dev/pts/0"]


def test_the_hosts_devices_cannot_be_changed(run: Run) -> None:
    before = os.stat("/dev/null").st_mode
    ended = run("chmod 600 /dev/null; chown 7 /dev/null; chmod 600 /proc/keys; exit 0", "isolation.cap_add = ['ALL']")
    assert ended.output.count("Read-only file system") == 3
    assert os.stat("/dev/null").st_mode == before
    assert stat.S_IMODE(before) == 0o666


@pytest.mark.parametrize("directory", ["/dev", "/dev/shm", "/tmp", "/"])
def test_a_device_made_inside_is_of_no_use(run: Run, directory: str) -> None:
    device = f"{directory}/made"
    ended = run(f"mknod {device} c 1 5 && echo made; head -c 1 {device}")
    assert ended.lines[0] == "made"
    assert "Permission denied" in ended.output


@pytest.mark.parametrize("path", ["/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/kcore"])
def test_masked_files_are_empty(run: Run, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    assert Path(path).read_text()
    assert run(f"cat {path}").output == ""


def test_masked_directories_are_empty(run: Run) -> None:
    assert os.listdir("/sys/firmware")
    assert run("ls /sys/firmware").output == ""


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/core_pattern", "/proc/sys/new", "/sys/new", "/sys/firmware/new", "/sys/fs/cgroup/new"]
)
def test_the_kernels_files_cannot_be_written(run: Run, path: str) -> None:
    ended = run(f"echo x > {path}")
    assert ended.status != 0
    assert any(words in ended.output for words in ("Read-only file system", "Directory nonexistent", "No such file"))


def test_shared_memory_and_queues(python: Run) -> None:
    ended = python("""
        import os
        open("/dev/shm/x", "w").write("x")
        print(os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize >> 20, os.listdir("/dev/mqueue"))
    """)
    assert ended.lines == ["64 []"]


# -- what it may use -----------------------------------------------------------------------------------------


def test_no_more_processes_than_allowed(python: Run) -> None:
    ended = python(
        """
        import os, time
        made = 0
        try:
            while made < 100:
                if os.fork() == 0:
                    time.sleep(10)
                    os._exit(0)
                made += 1
        except BlockingIOError:
            print(made)
        """,
        "resources.pids = 20",
    )
    assert ended.lines == ["19"]


def test_no_more_memory_than_allowed(python: Run) -> None:
    assert python("print(len('x' * (20 << 20)))", 'resources.memory = "64M"').lines == [str(20 << 20)]
    assert python("print(len('x' * (200 << 20)))", 'resources.memory = "64M"', 'resources.swap = "0"').status == 137


def test_no_more_processor_time_than_allowed(python: Run) -> None:
    ended = python(
        """
        import time
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        print(time.process_time())
        """,
        "resources.cpus = 0.2",
    )
    assert float(ended.output) < 0.5


def test_cgroups_go_with_the_container(engine: Engine, run: Run) -> None:
    ended = run("sleep 0.1")
    groups = [Path(path) for path in engine.inspect(engine.find(ended.name))["cgroups"]]
    assert groups
    assert all((group / "cgroup.procs").exists() for group in groups)
    engine.down(ended.name.partition("/")[0])
    assert not any(group.exists() for group in groups)


# -- user namespaces -----------------------------------------------------------------------------------------


PROGRAMS = ("cat", "id", "sh", "sleep", "stat", "touch")


@pytest.fixture(scope="module")
def own_ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Fields for a container with ids of its own, and an image: a few programs of the host and what they load."""
    image = tmp_path_factory.mktemp("image")
    for path in (shutil.which(program) for program in PROGRAMS):
        assert path
        loaded = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for source in (path, *re.findall(r"/\S+", loaded)):
            place = image / source.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
    (image / "etc").mkdir()
    for name in ("passwd", "group", "hosts", "hostname", "resolv.conf"):
        (image / "etc" / name).touch()
    subprocess.run(["chmod", "-R", "a+rX", image], check=True)
    return f'image = "{image}"', 'isolation.userns = "700000:65536"'


def test_root_inside_is_nobody_outside(engine: Engine, own_ids: tuple[str, str]) -> None:
    app = engine.load_text(spec(["sleep", "60"], *own_ids), environment={})
    engine.apply(app)
    try:
        (pid,) = (record.pid for record in engine.containers() if record.app == app.name)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        assert [line.split()[1:] for line in lines if line.startswith(("Uid", "Gid"))] == [["700000"] * 4] * 2
    finally:
        engine.down(app.name, 0)


def test_in_a_user_namespace(run: Run, own_ids: tuple[str, str]) -> None:
    files = "touch /dev/shm/mine /mine && stat -c %u /dev/shm/mine /mine"
    ended = run(f"cat /proc/self/uid_map /proc/self/gid_map; id -u; {files}", *own_ids)
    assert [line.split() for line in ended.lines] == [["0", "700000", "65536"]] * 2 + [["0"]] * 3


def test_the_rest_holds_in_a_user_namespace_too(run: Run, own_ids: tuple[str, str]) -> None:
    status = status_of(run(STATUS, *own_ids))
    assert status["CapEff"] == status["CapBnd"] == f"{mask(DEFAULT):016x}"
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    ended = run("cat /proc/keys; echo x > /proc/sys/kernel/hostname; echo x > /dev/null && echo written", *own_ids)
    assert "Read-only file system" in ended.output
    assert ended.lines[-1] == "written"


def test_another_user_of_the_namespace(run: Run, own_ids: tuple[str, str]) -> None:
    assert run("id -u; id -g", *own_ids, 'isolation.user = "1000:1000"').lines == ["1000", "1000"]


def test_a_user_that_has_no_id_there(engine: Engine, own_ids: tuple[str, str]) -> None:
    with pytest.raises(PycoreError, match="become user 70000: an id is not one"):
        run_in(engine, ["true"], *own_ids, 'isolation.user = "70000"')
