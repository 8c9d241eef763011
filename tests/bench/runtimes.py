"""The runtimes that are compared: how each starts one container, and how it starts many."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from enclosure import CGROUP
from image import make_root
from pycore.launch.launcher import Stdio
from pycore.spec import App

TRUE, SLEEP = "/bin/true", "/bin/sleep"
PROGRAMS = ("true", "sleep", "sh", "yes", "head")
NETWORK = "bench"
"""A network in which containers find each other by name."""
FIRST_PORT = 20000


def run(*command: object) -> str:
    """Run a command that must work. Returns its output; raises RuntimeError with what it said."""
    words = [str(word) for word in command]
    with TemporaryFile("w+") as output:  # no pipe: containers that stay would hold it open
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        output.seek(0)
        said = output.read()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words[:3])} ...: {said.strip()[-400:]}")
    return said


def make_image(directory: Path) -> Path:
    """A small root file system, the same for all runtimes, and an archive of it."""
    iperf = ("iperf3",) if shutil.which("iperf3") else ()
    root = make_root(directory / "image", (*PROGRAMS, *iperf))
    if shutil.which("cc"):
        run("cc", "-O2", "-static", "-o", root / "bin/connect", Path(__file__).with_name("connect.c"))
    run("tar", "-C", root, "-cf", directory / "image.tar", ".")
    return root


class Runtime:
    """One contender. ``many`` says whether it can leave containers running, ``bridges`` whether it publishes ports."""

    name = ""
    program = ""
    many = True
    bridges = True
    executes = True
    """Whether one more program can be run in a container that runs."""
    workers: tuple[int, ...] = (1, 2, 4, 8)
    """How many starts at once are tried, to find the best."""
    residents: frozenset[str] = frozenset()
    """Words of the command lines of what stays beside the containers: daemons, monitors."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory, self.root = directory / self.name, root
        self.directory.mkdir()

    @classmethod
    def found(cls) -> bool:
        """Whether it is installed."""
        return shutil.which(cls.program) is not None

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Whatever it needs to be started before it starts containers."""
        yield

    def once(self) -> None:
        """One container without network, from start to exit."""
        raise NotImplementedError

    def start(self, number: int, bridged: bool) -> None:
        """One container that stays; bridged, with a name and two ports of its own."""
        raise NotImplementedError

    floods: Mapping[str, Sequence[str]] = {}
    """Ways to keep a log, by name: the flags that choose them. Empty where none is kept."""

    def flood(self, flags: Sequence[str], program: Sequence[str]) -> None:
        """A container in the background, from start until it has ended and its log is whole; then it is removed."""
        raise NotImplementedError

    def start_many(self, count: int, bridged: bool, workers: int) -> None:
        """Containers 0 to ``count``, ``workers`` at once."""
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda number: self.start(number, bridged), range(count)):
                pass

    def remove_many(self, count: int) -> None:
        """Take them away again."""
        raise NotImplementedError

    def execute(self) -> None:
        """One more program in the first of many, from the command to its exit."""
        raise NotImplementedError

    def pair(self, script: str, ports: Sequence[str]) -> str:
        """Two bridged containers in one network: ``server``, which runs a script and has these ports published, and
        ``client``. The server's address there.
        """
        raise NotImplementedError

    def inside(self, container: str, *words: object) -> str:
        """What a program in one of them says."""
        raise NotImplementedError

    def remove_pair(self) -> None:
        """Take them away again."""
        raise NotImplementedError


class Bubblewrap(Runtime):
    name, program = "bubblewrap", "bwrap"
    many = bridges = executes = False

    def once(self) -> None:
        run("bwrap", "--unshare-all", "--ro-bind", self.root, "/", "--proc", "/proc", "--dev", "/dev", TRUE)


class Oci(Runtime):
    """crun and runc: an OCI bundle each, without overlay, network and seccomp profile."""

    bridges = False

    def once(self) -> None:
        self._oci("run", "--bundle", self._bundle("once", TRUE), "once")

    def start(self, number: int, bridged: bool) -> None:
        bundle, pid = self._bundle(f"many{number}", SLEEP, "600"), self.directory / f"{number}.pid"
        self._oci("run", "--detach", "--pid-file", pid, "--bundle", bundle, f"many{number}")

    def remove_many(self, count: int) -> None:
        for number in range(count):
            self._oci("delete", "--force", f"many{number}")

    def execute(self) -> None:
        self._oci("exec", "many0", TRUE)

    def _oci(self, *arguments: object) -> None:
        run(self.program, "--root", self.directory / "state", *arguments)

    def _bundle(self, name: str, *command: str) -> Path:
        bundle = self.directory / name
        if not bundle.exists():
            bundle.mkdir()
            run(self.program, "spec", "--bundle", bundle)
            config = json.loads((bundle / "config.json").read_text())
            config["process"] |= {"terminal": False, "args": list(command)}
            config["root"] = {"path": str(self.root), "readonly": True}
            config["linux"]["cgroupsPath"] = f"/{CGROUP}/{self.name}-{name}"
            (bundle / "config.json").write_text(json.dumps(config))
        return bundle


class Crun(Oci):
    name = program = "crun"


class Runc(Oci):
    name = program = "runc"


class Engine(Runtime):
    """podman and docker, which take the same words."""

    command: tuple[object, ...] = ()

    def once(self) -> None:
        run(*self.command, "run", "--rm", "--network", "none", *self._options(), "bench", TRUE)

    def start(self, number: int, bridged: bool) -> None:
        network = ["--network", NETWORK] if bridged else ["--network", "none"]
        for step in range(2 if bridged else 0):
            network += ["--publish", f"{FIRST_PORT + 2 * number + step}:{80 + step}"]
        run(
            *self.command,
            "run",
            "--detach",
            "--name",
            f"many{number}",
            *network,
            *self._options(),
            "bench",
            SLEEP,
            "600",
        )

    def remove_many(self, count: int) -> None:
        run(*self.command, "rm", "--force", *self._at_once(), *(f"many{number}" for number in range(count)))

    def execute(self) -> None:
        run(*self.command, "exec", "many0", TRUE)

    def pair(self, script: str, ports: Sequence[str]) -> str:
        published = [word for port in ports for word in ("--publish", port)]
        for name, program, words in (("server", ["/bin/sh", "-c", script], published), ("client", [SLEEP, "6000"], [])):
            start = ("run", "--detach", "--name", name, "--network", NETWORK, *words, *self._options())
            run(*self.command, *start, "bench", *program)
        found = json.loads(run(*self.command, "inspect", "server"))[0]["NetworkSettings"]["Networks"][NETWORK]
        return str(found["IPAddress"])

    def inside(self, container: str, *words: object) -> str:
        return run(*self.command, "exec", container, *words)

    def remove_pair(self) -> None:
        run(*self.command, "rm", "--force", *self._at_once(), "server", "client")

    def _options(self) -> list[str]:
        return ["--cgroup-parent", f"/{CGROUP}"]

    def _at_once(self) -> list[str]:
        return []


class Podman(Engine):
    name = program = "podman"
    residents = frozenset({"conmon"})

    @contextmanager
    def ready(self) -> Iterator[None]:
        places: list[object] = ["--root", self.directory / "storage", "--runroot", "/run/bench-podman"]
        networks = self.directory / "networks"  # else they are the host's own, in /etc
        networks.mkdir()
        places += ["--network-config-dir", networks]
        self.command = ("podman", *places, "--cgroup-manager", "cgroupfs", "--events-backend", "none")
        run(*self.command, "import", self.directory.parent / "image.tar", "bench")
        run(*self.command, "network", "create", NETWORK)
        yield
        # It mounts this over itself, and leaves it so while a monitor of an exec is there.
        subprocess.run(["umount", "--lazy", self.directory / "storage/overlay"], capture_output=True, check=False)

    def _at_once(self) -> list[str]:
        return ["--time", "0"]


class Docker(Engine):
    name, program = "docker", "dockerd"
    floods = {"json-file": ("--log-driver", "json-file")}
    residents = frozenset({"dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy"})

    @classmethod
    def found(cls) -> bool:
        return super().found() and shutil.which("docker") is not None

    @contextmanager
    def ready(self) -> Iterator[None]:
        socket = "unix:///run/bench-docker.sock"
        self.command = ("docker", "--host", socket)
        places = [
            "--data-root",
            self.directory,
            "--exec-root",
            "/run/bench-docker",
            "--pidfile",
            "/run/bench-docker.pid",
        ]
        with open(self.directory.parent / "dockerd.log", "wb") as log:
            daemon = subprocess.Popen(["dockerd", "--host", socket, *map(str, places)], stdout=log, stderr=log)
        try:
            self._wait_until_up(daemon)
            run(*self.command, "import", self.directory.parent / "image.tar", "bench")
            run(*self.command, "network", "create", NETWORK)
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)

    def flood(self, flags: Sequence[str], program: Sequence[str]) -> None:
        words = ["--detach", "--name", "flood", "--network", "none", *self._options(), *flags]
        run(*self.command, "run", *words, "bench", *program)
        run(*self.command, "wait", "flood")
        run(*self.command, "rm", "flood")

    def _wait_until_up(self, daemon: subprocess.Popen[bytes]) -> None:
        for _ in range(300):
            if daemon.poll() is not None:
                break
            if subprocess.run([*self.command, "version"], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"dockerd does not answer; see {self.directory.parent / 'dockerd.log'}")


class Pycore(Runtime):
    """pycore through its command, with a supervisor that is up."""

    name = program = "pycore"
    run_dir = "/run/bench-pycore"
    residents = frozenset({run_dir})
    workers = (1,)
    """One apply starts them all."""
    floods = {"as it is": (), "one file, unbounded": ("--log-max-size", "1T", "--log-max-files", "1")}

    @classmethod
    def found(cls) -> bool:
        return True

    @contextmanager
    def ready(self) -> Iterator[None]:
        self._apply("resident", [self._container("resident", bridged=False, number=0)])
        yield
        self.command("down", "resident")

    def once(self) -> None:
        self.command("run", "--rm", "--network", "none", self.root, TRUE)

    def flood(self, flags: Sequence[str], program: Sequence[str]) -> None:
        self.command("run", "--detach", "--name", "flood", "--network", "none", *flags, self.root, *program)
        self.command("wait", "flood")
        self.command("rm", "flood")

    def start_many(self, count: int, bridged: bool, workers: int) -> None:
        self._apply("many", [self._container(f"c{number}", bridged, number) for number in range(count)])

    def remove_many(self, count: int) -> None:
        self.command("down", "many")

    def execute(self) -> None:
        self.command("exec", "many/c0", TRUE)

    def pair(self, script: str, ports: Sequence[str]) -> str:
        server = self._container("server", bridged=True, number=0, program=["/bin/sh", "-c", script], ports=ports)
        client = self._container("client", bridged=True, number=0, program=[SLEEP, "6000"], ports=[])
        self._apply("pair", [server, client])
        return str(json.loads(self.command("inspect", "pair/server", "--json"))["address"])

    def inside(self, container: str, *words: object) -> str:
        return self.command("exec", f"pair/{container}", *words)

    def remove_pair(self) -> None:
        self.command("down", "pair")

    def command(self, *arguments: object) -> str:
        """A command of pycore; what it says. Raises RuntimeError with that where it fails."""
        places = ["--run-dir", self.run_dir, "--data-dir", self.directory / "data"]
        return run(Path(sys.executable).with_name("pycore"), *places, *arguments)

    def _apply(self, name: str, containers: list[str]) -> None:
        self.command("apply", self._spec(name, containers))

    def _spec(self, name: str, containers: list[str]) -> Path:
        file = self.directory / f"{name}.toml"
        file.write_text("\n".join([f'name = "{name}"', *containers]))
        return file

    def _container(
        self,
        name: str,
        bridged: bool,
        number: int,
        program: Sequence[str] = (SLEEP, "600"),
        ports: Sequence[str] | None = None,
    ) -> str:
        if ports is None:
            ports = [f"{FIRST_PORT + 2 * number + step}:{80 + step}" for step in range(2)]
        network = f'driver = "bridge"\nports = {json.dumps(list(ports))}' if bridged else 'driver = "none"'
        return (
            f'[container.{name}]\nimage = "{self.root}"\ncommand = {json.dumps(list(program))}\n'
            f'stop_signal = "SIGKILL"\n[container.{name}.network]\n{network}\n'
        )


class PycoreCold(Pycore):
    """pycore with no supervisor up: each start brings up its own, which ends with the container."""

    name = "pycore, cold"
    many = executes = False
    floods = {}
    turn = 0

    @contextmanager
    def ready(self) -> Iterator[None]:
        os.environ["PYCORE_LINGER"] = "0.1"
        yield

    def once(self) -> None:
        self.turn += 1
        self.run_dir = f"/run/bench-pycore-cold-{self.turn}"
        super().once()


class PycoreInProcess(Pycore):
    """pycore as a library."""

    name = "pycore, in process"
    many = False
    floods = {}

    @contextmanager
    def ready(self) -> Iterator[None]:
        import pycore

        app = self.directory / "app.toml"
        app.write_text(
            f'name = "once"\n{self._container("c", bridged=False, number=0)}'.replace(f'"{SLEEP}", "600"', f'"{TRUE}"')
        )
        with pycore.Engine(run_dir="/run/bench-pycore-engine", data_dir=self.directory / "data") as self.engine:
            self.app = self.engine.load(app)
            yield

    def once(self) -> None:
        self.run(self.app)

    def app_of(self, name: str, image: str) -> App:
        """An app of one container like that of once(), of another image."""
        return self.engine.load_text(
            f'name = "{name}"\n[container.c]\nimage = "{image}"\ncommand = ["{TRUE}"]\n'
            '[container.c.network]\ndriver = "none"\n'
        )

    def run(self, app: App) -> None:
        """Its container, from start to exit; then it is removed."""
        self.engine.run(app)
        status = self.engine.wait(f"{app.name}/c")
        self.engine.down(app.name)
        if status != 0:
            raise RuntimeError(f"the container ended with {status}")

    def remove_many(self, count: int) -> None:
        self.engine.down("many")

    def execute(self) -> None:
        with open(os.devnull, "r+b", buffering=0) as null:
            stdio = Stdio(null.fileno(), null.fileno(), null.fileno())
            execution = self.engine.execute("many/c0", [TRUE], stdio)
        with closing(execution):
            status = execution.wait()
        if status != 0:
            raise RuntimeError(f"the program ended with {status}")

    def _apply(self, name: str, containers: list[str]) -> None:
        self.engine.apply(self.engine.load(self._spec(name, containers)))


class Floor(Runtime):
    """The same system calls from C, see floor.c: one container for each line it is sent."""

    name, program = "floor (C)", "cc"
    many = executes = False

    @contextmanager
    def ready(self) -> Iterator[None]:
        binary = self.directory / "floor"
        run("cc", "-O2", "-o", binary, Path(__file__).with_name("floor.c"))
        command = [binary, self.root, self.directory, self._filter()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as self.process:
            yield
            self.process.communicate()

    def once(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(b"\n")
        if self.process.stdout.readline() != b"done\n":
            raise RuntimeError(f"floor ended with {self.process.wait()}")

    def _filter(self) -> Path:
        """The system-call filter that pycore compiles, so that both load the same one."""
        pycore = Pycore(self.directory, self.root)
        pycore.run_dir = "/run/bench-floor"
        pycore.once()
        (kept,) = pycore.directory.glob("data/cache/seccomp/*.bpf")
        program = self.directory / "filter"
        program.write_bytes(kept.read_bytes()[32:])  # without the checksum before it
        return program


RUNTIMES: tuple[type[Runtime], ...] = (
    Floor,
    PycoreInProcess,
    Pycore,
    PycoreCold,
    Bubblewrap,
    Crun,
    Runc,
    Podman,
    Docker,
)
"""In the order of the table."""
