"""One more process in a container: it is in all that the container is in, and none of the container's code is in it."""

from __future__ import annotations

import importlib
import os
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore.engine import Engine
from pycore.errors import ProgramNotFound, StartError
from pycore.launch.idmap import MapIds
from pycore.launch.launcher import Starting, Stdio
from pycore.ops import Context
from support.command import wait_readable
from support.launching import ALL, PATIENCE, Launching

pytestmark = pytest.mark.root


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Launching]:
    launching = Launching(tmp_path / "run")
    yield launching
    launching.end()


def namespaces(pid: int | str) -> dict[str, str]:
    found = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns")}
    return {name: where for name, where in found.items() if not name.endswith("_for_children")}


def start_with_ids(yard: Launching, identity: str, *argv: str) -> Starting:
    """A container in a user namespace of its own, ids 0-999 there being 100000 and up here."""
    starting = yard.launch(identity, *argv, kinds=(*ALL, "user"))
    from pycore.linux.kernel import Kernel

    MapIds(100000, 1000).do(Context(Kernel(), pid=starting.pid))
    starting.mapped()
    starting.go()
    return starting


# -- where it is ---------------------------------------------------------------------------------------------


def test_it_is_in_every_namespace_of_the_container(yard: Launching) -> None:
    first = yard.start("a", "sh", "-c", "unshare -C sleep 1000 & exec sleep 1000")
    more = yard.execute(first, "a.1", "sleep", "1000")
    assert namespaces(more.pid) == namespaces(first.pid)
    different = {name for name, where in namespaces("self").items() if where != namespaces(more.pid)[name]}
    assert {"mnt", "pid", "uts", "ipc", "net"} <= different
    assert sorted(os.listdir(f"/proc/{more.pid}/fd")) == ["0", "1", "2"]


def test_what_the_container_shares_with_the_host_is_shared(yard: Launching) -> None:
    first = yard.start("a", "sleep", "1000", kinds=("uts",))
    more = yard.execute(first, "a.1", "sleep", "1000")
    assert namespaces(more.pid) == namespaces(first.pid)
    assert namespaces(more.pid)["pid"] == namespaces("self")["pid"]


def test_in_a_user_namespace_it_is_root_of_that(yard: Launching) -> None:
    first = start_with_ids(yard, "a", "sleep", "1000")
    more = yard.execute(first, "a.1", "sleep", "1000")
    assert namespaces(more.pid) == namespaces(first.pid)
    assert os.stat(f"/proc/{more.pid}").st_uid == 100000
    assert yard.output(first, "a.2", "id", "-u") == "0\n"


def test_it_goes_with_the_container(yard: Launching) -> None:
    first = yard.start("a", "sleep", "1000")
    more = yard.execute(first, "a.1", "sleep", "1000")
    yard.launcher.kill("a", first.pidfd, signal.SIGKILL)
    assert wait_readable(more.pidfd, PATIENCE)
    assert (yard.ended("a"), yard.ended("a.1")) == (-9, -9)
    assert not (yard.run_dir / "containers" / "a.1").exists()


def test_the_spawner_is_where_it_was_afterwards(yard: Launching) -> None:
    first = yard.start("a", "sleep", "1000")
    yard.output(first, "a.1", "true")
    second = yard.start("b", "sleep", "1000", kinds=("mount",))
    assert namespaces(second.pid)["pid"] == namespaces("self")["pid"]
    (spawner,) = yard.spawners()
    assert namespaces(spawner) == namespaces("self")


def test_it_may_be_anywhere_that_there_is_and_makes_nothing(yard: Launching, tmp_path: Path) -> None:
    first = yard.start("a", "sleep", "1000")
    assert yard.output(first, "a.1", "pwd", working_dir=str(tmp_path)) == f"{tmp_path}\n"
    with pytest.raises(StartError, match=r"working directory .*nowhere: No such file"):
        yard.execute(first, "a.2", "true", working_dir=str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_a_program_that_is_not_there(yard: Launching) -> None:
    first = yard.start("a", "sleep", "1000")
    with pytest.raises(ProgramNotFound, match="nonesuch: not found in the container"):
        yard.execute(first, "a.1", "nonesuch")


def test_into_a_container_that_has_ended(yard: Launching) -> None:
    first = yard.start("a", "sh", "-c", "exit 3")
    assert yard.ended("a") == 3
    with pytest.raises(StartError, match="t/b: the container has just ended"):
        yard.execute(first, "b", "true")
    assert yard.told == ["a"]


def test_into_a_container_that_is_just_ending(yard: Launching) -> None:
    """Its first process is a zombie: there, but nobody can join it any more. The spawner that could reap it stands."""
    first = yard.start("a", "sleep", "1000")
    other = Launching(yard.run_dir.with_name("other"))
    try:
        other.start("z", "true")
        (parent,) = yard.spawners()
        os.kill(parent, signal.SIGSTOP)
        try:
            signal.pidfd_send_signal(first.pidfd, signal.SIGKILL)
            assert wait_readable(first.pidfd, PATIENCE)
            with pytest.raises(StartError, match="t/b: the container has just ended"):
                other.execute(first, "b", "true")
        finally:
            os.kill(parent, signal.SIGCONT)
    finally:
        other.end()


# -- what it may do ------------------------------------------------------------------------------------------

SPEC = """
name = "t"

[container.one]
image = "host"
command = ["sleep", "1000"]
stop_signal = "KILL"

[container.one.isolation]
cap_drop = ["ALL"]
cap_add = ["CHOWN"]

[container.one.network]
driver = "none"
"""


@pytest.mark.needs("libseccomp")
def test_it_has_the_limits_the_filter_and_the_powers_of_the_container(tmp_path: Path) -> None:
    with Engine(tmp_path / "run", tmp_path / "data") as engine:
        try:
            engine.apply(engine.load_text(SPEC))
            life = engine.open()
            live = life.live[engine.find("one").id]
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            container = life.container(live.record)
            ready, told = os.pipe2(os.O_CLOEXEC)
            says_so = ["sh", "-c", "echo; kill -STOP $$"]
            more = life.executions.start(live, container, says_so, Stdio(null, told, null))
            os.close(null)
            os.close(told)
            assert wait_readable(ready, PATIENCE), "before that its program is still being loaded"
            os.close(ready)
            pids = (live.record.pid, more.pid)
            mine, its = (Path(f"/proc/{pid}/cgroup").read_text() for pid in pids)
            assert mine == its
            assert live.record.id in its
            first, second = (status(pid) for pid in pids)
            same = (
                "Seccomp",
                "Seccomp_filters",
                "NoNewPrivs",
                "CapInh",
                "CapPrm",
                "CapEff",
                "CapBnd",
                "CapAmb",
                "Uid",
                "Groups",
            )
            assert {key: first[key] for key in same} == {key: second[key] for key in same}
            assert (second["Seccomp"], second["NoNewPrivs"], int(second["CapBnd"], 16)) == ("2", "1", 1)
            assert Path(f"/proc/{pids[0]}/limits").read_text() == Path(f"/proc/{pids[1]}/limits").read_text()
            assert namespaces(pids[0]) == namespaces(pids[1])
            assert namespaces(pids[0])["cgroup"] != namespaces("self")["cgroup"]
            assert sorted(os.listdir(f"/proc/{more.pid}/fd")) == ["0", "1", "2"]
            more.close()
        finally:
            engine.down("t")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


# -- whose code runs -----------------------------------------------------------------------------------------

HOSTILE = """
import os
from dataclasses import dataclass
from pycore.ops import Operation
from pycore.steps import Step

def provoke():
    found = []
    for act in (lambda: "a.b".encode("idna"), lambda: __import__("calendar"), lambda: __import__("planted_here"),
                lambda: __import__("xml.sax.saxutils")):
        try:
            act()
            found.append("done")
        except Exception as error:
            found.append(type(error).__name__)
    return " ".join(found)

@dataclass(frozen=True)
class Cover(Operation):
    step = Step.MOUNT
    evil: str
    place: str

    def do(self, ctx):
        ctx.kernel.mount_place(ctx.kernel.mount_clone(self.evil), self.place)

    def explain(self):
        return "put hostile modules where ours are"

@dataclass(frozen=True)
class Provoke(Operation):
    step = Step.RLIMIT
    early: bool = False

    def do(self, ctx):
        raise OSError(1, provoke())

    def explain(self):
        return "import what was never imported"

class ProvokeEarly(Provoke):
    step = Step.IDENTITY

def called(*words):
    os.write(1, (provoke() + "\\n").encode())
    return 0

def look(place):
    os.write(1, f"{os.listdir('/proc/self/fd')} {os.path.exists(place)} {os.getuid()}\\n".encode())
    return 3

def fail():
    raise FileNotFoundError(2, "No such file or directory", "/some/where")

def break_down():
    raise RuntimeError("something else")
"""

PLANTED = "open({marker!r}, 'a').write(__name__ + '\\n')\n"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A directory of modules that leave a mark when they are imported, and the mark."""
    directory, marker, ours = tmp_path / "evil", tmp_path / "marker", tmp_path / "ours"
    for name in ("calendar", "planted_here", "pwd", "encodings/__init__", "encodings/idna", "xml/__init__"):
        place = directory / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(PLANTED.format(marker=str(marker)))
    ours.mkdir()
    (ours / "hostile_operations.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(ours)
    return directory, marker


NOTHING = "LookupError ModuleNotFoundError ModuleNotFoundError ModuleNotFoundError"


def test_no_module_of_the_container_is_imported_when_it_starts(yard: Launching, evil: tuple[Path, Path]) -> None:
    hostile = importlib.import_module("hostile_operations")
    cover = hostile.Cover(str(evil[0]), sysconfig.get_path("stdlib"))
    for identity, provoke in (("a", hostile.Provoke()), ("b", hostile.ProvokeEarly())):
        with pytest.raises(StartError, match=NOTHING):
            yard.start(identity, "true", operations=[cover, provoke])
    assert not evil[1].exists()


def test_no_module_of_the_container_is_imported_by_one_more_process(yard: Launching, evil: tuple[Path, Path]) -> None:
    hostile = importlib.import_module("hostile_operations")
    cover = hostile.Cover(str(evil[0]), sysconfig.get_path("stdlib"))
    first = yard.start("a", "sleep", "1000", operations=[cover])
    with pytest.raises(StartError, match=NOTHING):
        yard.execute(first, "a.1", "true", operations=[hostile.Provoke()])
    assert yard.output(first, "a.2", call="hostile_operations:called") == f"{NOTHING}\n"
    assert not evil[1].exists()


# -- functions -----------------------------------------------------------------------------------------------


def test_a_function_sees_the_containers_files_and_has_nothing_else(
    yard: Launching, evil: tuple[Path, Path], tmp_path: Path
) -> None:
    hostile = importlib.import_module("hostile_operations")
    (tmp_path / "place").mkdir()
    first = yard.start("a", "sleep", "1000", operations=[hostile.Cover(str(evil[0]), str(tmp_path / "place"))])
    seen = str(tmp_path / "place" / "calendar.py")
    assert yard.output(first, "a.1", seen, call="hostile_operations:look") == "['0', '1', '2', '3'] True 0\n"
    assert yard.ends["a.1"] == 3
    assert not os.path.exists(seen)


def test_a_function_joins_no_more_than_it_must(yard: Launching, evil: tuple[Path, Path]) -> None:
    first = start_with_ids(yard, "a", "sleep", "1000")
    (read, write), null = os.pipe2(os.O_CLOEXEC), yard.stdio().stdin
    feed_read, feed_write = os.pipe2(os.O_CLOEXEC)
    stdio = Stdio(feed_read, write, null)
    more = yard.execute(first, "a.1", call="support.called:wait", stdio=stdio)
    os.close(feed_read)
    os.close(write)
    mine, its, host = namespaces(more.pid), namespaces(first.pid), namespaces("self")
    assert {name for name in its if mine[name] == its[name] != host[name]} == {"mnt", "user"}
    os.close(feed_write)
    assert os.read(read, 100) == b"0"
    os.close(read)
    assert yard.ended("a.1") == 0


def test_a_function_can_be_a_containers_first_process(yard: Launching, evil: tuple[Path, Path]) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    yard.start("a", "/nonexistent", call="hostile_operations:look", stdio=Stdio(yard.stdio().stdin, write, write))
    os.close(write)
    with open(read) as file:
        assert "False 0" in file.read()
    assert yard.ended("a") == 3
    assert yard.written("a") == 3


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fail", "t/a.1: /some/where: No such file or directory\n"),
        ("break_down", "t/a.1: RuntimeError: something else\n"),
    ],
)
def test_a_function_that_fails_says_so_as_a_program_does(
    yard: Launching, evil: tuple[Path, Path], function: str, words: str
) -> None:
    first = yard.start("a", "sleep", "1000")
    assert yard.output(first, "a.1", call=f"hostile_operations:{function}") == words
    assert yard.ends["a.1"] == 1


def test_a_function_that_is_not_there_is_an_error_of_the_start(yard: Launching) -> None:
    first = yard.start("a", "sleep", "1000")
    with pytest.raises(StartError, match="nonesuch"):
        yard.execute(first, "a.1", call="pycore.launch.nonesuch:function")
    assert yard.told == []
