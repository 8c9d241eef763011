"""A host in memory: every method of the kernel, none of its effects.

Nothing reaches the real host, but for descriptors of memory files that stand for mounts. A call that would
change the host can be made to fail, and :meth:`FakeKernel.snapshot` compares before and after.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import reprlib
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pycore.linux.conntrack import Flow
from pycore.linux.kernel import MAX_FILE, Kernel
from pycore.linux.nftelements import Change, Element
from pycore.linux.nftevents import Deletions
from pycore.testing.files import Files, Node, fail
from pycore.testing.links import HOST, Links
from pycore.testing.nft import Nft

P = ParamSpec("P")
R = TypeVar("R")

CGROUPS = "/sys/fs/cgroup"
_CONTROLLERS = "cpuset cpu io memory hugetlb pids"
_CONTROL_FILES = {
    "cgroup.procs": "",
    "cgroup.subtree_control": "",
    "cgroup.controllers": _CONTROLLERS,
    "cgroup.kill": "",
    "cgroup.freeze": "0",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "memory.max": "max",
    "memory.high": "max",
    "memory.low": "0",
    "memory.swap.max": "max",
    "memory.oom.group": "0",
    "memory.current": "0",
    "memory.stat": "inactive_file 0\n",
    "memory.events": "oom 0\noom_kill 0\n",
    "cpu.max": "max 100000",
    "cpu.weight": "100",
    "cpu.stat": "usage_usec 0\n",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "io.max": "",
    "io.weight": "default 100",
    "pids.max": "max",
    "pids.current": "0",
    "pids.events": "max 0\n",
}

_V1_FILES: Mapping[str, Mapping[str, str]] = {
    kind: {"cgroup.procs": "", "tasks": "", **files}
    for kind, files in {
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1", "cpu.shares": "1024"},
        "memory": {
            "memory.limit_in_bytes": "9223372036854771712",
            "memory.usage_in_bytes": "0",
            "memory.stat": "total_inactive_file 0\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        },
        "pids": {"pids.max": "max", "pids.current": "0", "pids.events": "max 0\n"},
        "freezer": {"freezer.state": "THAWED"},
    }.items()
}

_FILES: Mapping[str, str] = {
    "/dev/null": "",
    "/dev/zero": "",
    "/dev/full": "",
    "/dev/random": "",
    "/dev/urandom": "",
    "/dev/tty": "",
    "/etc/group": "root:x:0:\n",
    "/etc/hostname": "fake\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/etc/resolv.conf": "nameserver 192.0.2.53\n",
    "/proc/filesystems": "nodev\toverlay\n\text4\n",
    "/proc/sys/kernel/random/boot_id": "11111111-2222-4333-8444-555555555555\n",
    "/proc/self/limits": "",
    "/proc/sys/kernel/cap_last_cap": "40\n",
    "/proc/sys/kernel/hostname": "fake\n",
    "/proc/sys/net/ipv4/ip_forward": "0\n",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
    "/proc/sys/net/ipv6/conf/all/forwarding": "0\n",
    "/proc/sys/user/max_user_namespaces": "15000\n",
}
_DIRECTORIES = (
    "/bin", "/home", "/proc/sys/net/ipv4/conf", "/root", "/run", "/sys/class/net", "/sys/firmware", "/tmp", "/usr/bin",
    "/var/lib", "/var/tmp",
)  # fmt: skip
_MOUNTS = (
    ("/", "ext4"),
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    (CGROUPS, "cgroup2"),
    ("/dev", "devtmpfs"),
    ("/run", "tmpfs"),
)
_PROCESS_FILES = ("uid_map", "gid_map", "setgroups", "comm", "cgroup", "oom_score_adj")
_LINK_FILES = ("route_localnet", "forwarding", "rp_filter", "arp_notify", "accept_local", "proxy_arp")
_ALL_CAPABILITIES = (1 << 41) - 1


def _act(method: Callable[P, R]) -> Callable[P, R]:
    """A method that changes the host: noted in :attr:`FakeKernel.calls`, and a place where a fault can be."""

    @wraps(method)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        kernel = arguments[0]
        assert isinstance(kernel, FakeKernel)
        kernel.faults.check(f"{method.__name__}({', '.join(map(reprlib.repr, arguments[1:]))})")
        return method(*arguments, **keywords)

    return call


@dataclass
class Faults:
    """What was called, and which call is to fail."""

    calls: list[str] = field(default_factory=list[str])
    at: frozenset[int] = frozenset()
    error: OSError | None = None
    hit: Callable[[str], None] | None = None
    """Called for each call that fails, just before it does."""

    def check(self, call: str) -> None:
        self.calls.append(call)
        if self.error and len(self.calls) in self.at:
            if self.hit:
                self.hit(call)
            raise self.error


@dataclass
class Mount:
    """A mount behind a descriptor, or in its place."""

    fstype: str
    source: str = ""
    options: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    attributes: int = 0
    target: str = ""
    inode: int = field(default=0, compare=False, repr=False)


@dataclass
class Process:
    """A process, and what it made of itself."""

    pid: int
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    """By the method that set it: ``settings["set_hostname"] == ("web",)``."""


class _Silence(Deletions):
    """Nothing is ever heard."""

    def __init__(self, table: str) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def read(self) -> bool:
        return False


class FakeKernel(Kernel):
    """The kernel of a host that exists only here: root on an ext4 file system, cgroup v2, no network but ``lo``.

    ``files`` are added to it, or taken away where the text is None; a path that ends in a slash is a directory.
    With ``legacy`` its control groups are v1: a hierarchy each for cpu, memory, pids and the freezer.
    """

    def __init__(self, files: Mapping[str, str | None] | None = None, *, legacy: bool = False) -> None:
        self.legacy = legacy
        self.files = Files()
        self.network = Links()
        self.nftables = Nft()
        self.faults = Faults()
        self.processes: dict[int, Process] = {}
        self.listening: dict[str, dict[tuple[str, int], str]] = {"tcp": {}, "udp": {}}
        """Protocol to (address in the kernel's hex, port) to the process that holds it."""
        self.tracked: list[tuple[str, Flow]] = []
        """Connections: the protocol of each, and what the kernel tracks of it."""
        self.local_addresses = {"127.0.0.1", "::1"}
        self.host_routes: list[str] = []
        self.helpers: dict[str, tuple[str, ...]] = {}
        """Record to the words of a program that runs beside a container."""
        self.ids = [(0, (1 << 32) - 1)]
        """(first, how many): another list for a normal user's pycore."""
        self.network_is_ours = True
        self.quotas: dict[str, int] = {}
        """Directory to its limit in bytes."""
        self.keeps_quotas = True
        self.descriptors: dict[int, Mount] = {}
        self.mounted: list[Mount] = []
        """What was put in its place, in order; a child's are its own."""
        self.root: Mount | None = None
        self.me = Process(1)
        self.host = self
        """The kernel as the host sees it, for one that a process sees."""
        for path in _DIRECTORIES:
            self.files.make_directories(path)
        for path, text in {**_FILES, **self._hierarchies(), **(files or {})}.items():
            self.add_file(path, text)

    def _hierarchies(self) -> dict[str, str]:
        """The files of the root of each hierarchy."""
        if not self.legacy:
            return {f"{CGROUPS}/{name}": text for name, text in _CONTROL_FILES.items()}
        return {f"{CGROUPS}/{kind}/{name}": text for kind, files in _V1_FILES.items() for name, text in files.items()}

    def add_file(self, path: str, text: str | None) -> None:
        """Put a file on the host (or a directory, with a slash at its end), or with None take it away."""
        if text is None and self.is_dir(path):
            self.files.remove_tree(path)
        elif text is None:
            with contextlib.suppress(FileNotFoundError):
                self.files.remove(path)
        elif path.endswith("/"):
            self.files.make_directories(path.rstrip("/"))
        else:
            self.files.make_directories(posixpath.dirname(path))
            self.files.put(path, Node("file", text.encode()))

    # -- for tests ---------------------------------------------------------------------------------------

    @property
    def calls(self) -> list[str]:
        """Every call that would have changed a host, in order."""
        return self.faults.calls

    def fail_at(self, *counts: int, error: OSError | None = None) -> None:
        """Let the calls fail that are so many calls from now, each once: 1 is the next. 0, or none, takes that back."""
        self.faults.at = frozenset(len(self.calls) + count for count in counts if count)
        self.faults.error = (error or OSError(errno.EIO, "a fault that the test asked for")) if self.faults.at else None

    @contextlib.contextmanager
    def without_faults(self) -> Generator[None, None, None]:
        """No call fails for the length of a with block; one that was to fail in it does not fail later."""
        error, self.faults.error = self.faults.error, None
        try:
            yield
        finally:
            self.faults.error = error

    def snapshot(self, *but: str) -> dict[str, object]:
        """All that the host keeps, to be compared; paths that begin with one of ``but`` left out.

        Numbers that the kernel chooses (process ids, indexes of links) are left out too: after a restart they
        are others, and all is as before.
        """
        found: dict[str, object] = {
            f"file {path}": len(node.content.split()) if path.endswith("/cgroup.procs") else node
            for path, node in self.files.nodes.items()
            if not path.startswith(but) and not _of_process(path)
        }
        found |= self.network.snapshot()
        found |= {
            f"nft {table} {name}": dict(elements)
            for table, sets in self.nftables.tables.items()
            for name, elements in sets.items()
        }
        found |= {f"quota {path}": size for path, size in self.quotas.items()}
        found |= {f"helper {record}": words for record, words in self.helpers.items()}
        return {**found, "processes": len(self.processes)}

    def add_process(self, pid: int, beside: int = 0) -> FakeKernel:
        """A process in namespaces of its own, or in the network of another; returns the kernel as it sees it.

        It shares the host's control groups, network and processes; files and mounts that it makes are its own.
        """
        self.processes[pid] = process = Process(pid)
        self.network.open(pid, beside)
        for name in _PROCESS_FILES:
            self.add_file(f"/proc/{pid}/{name}", "")
        child = FakeKernel.__new__(FakeKernel)
        child.__dict__.update(self.__dict__)
        child.files, child.mounted, child.descriptors, child.me = self.files.copy(), [], {}, process
        return child

    def join_process(self, pid: int) -> FakeKernel:
        """One more process in this one's namespaces; returns the kernel as it sees it, files and mounts shared."""
        self.processes[pid] = process = Process(pid)
        for name in _PROCESS_FILES:
            self.host.add_file(f"/proc/{pid}/{name}", "")
        child = FakeKernel.__new__(FakeKernel)
        child.__dict__.update(self.__dict__)
        child.descriptors, child.me = {}, process
        return child

    def end_process(self, pid: int) -> None:
        """The process ends, and what lives only as long as it."""
        if self.processes.pop(pid, None) is None:
            return
        self.network.close(pid)
        self.files.remove_tree(f"/proc/{pid}")
        for path, node in list(self.files.nodes.items()):
            if path.startswith(CGROUPS) and path.endswith("/cgroup.procs"):
                left = [each for each in node.content.decode().split() if each != str(pid)]
                self.files.write(path, "".join(f"{each}\n" for each in left).encode())

    # -- looking -----------------------------------------------------------------------------------------

    def read(self, path: str, limit: int = 1 << 20) -> str:
        return self.files.get(path, "file").content[:limit].decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        return self.files.get(path, "file").content

    def exists(self, path: str) -> bool:
        return self.files.find(path) is not None

    def is_dir(self, path: str) -> bool:
        node = self.files.find(path)
        return node is not None and node.kind == "directory"

    def is_writable(self, path: str) -> bool:
        return self.exists(path)

    def link(self, path: str) -> str:
        return ""

    def listdir(self, path: str) -> list[str]:
        if path == "/sys/class/net":
            return self.links()
        try:
            return self.files.names(path)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def real(self, path: str) -> str:
        return self.files.real(path, strict=False)

    def stamp(self, path: str) -> str:
        node = self.files.get(path)
        return f"{len(node.content):x}-{node.version:x}"

    def link_text(self, path: str) -> str:
        node = self.files.nodes.get(posixpath.normpath(path))
        return node.content.decode() if node and node.kind == "link" else ""

    def mounts(self) -> list[tuple[str, str]]:
        mounts = [mount for mount in _MOUNTS if not (self.legacy and mount[0] == CGROUPS)]
        mounts += [(f"{CGROUPS}/{kind}", "cgroup") for kind in _V1_FILES if self.legacy]
        return [*mounts, *((mount.target, mount.fstype) for mount in self.mounted)]

    def filesystem(self, path: str) -> str:
        place = self.real(path)
        fits = [(point, kind) for point, kind in self.mounts() if f"{place}/".startswith(f"{point.rstrip('/')}/")]
        return max(fits, key=lambda fit: len(fit[0]))[1]

    def euid(self) -> int:
        return int(self.me.settings.get("set_user", (0,))[0])

    def capabilities(self) -> int:
        return _ALL_CAPABILITIES

    def id_ranges(self) -> list[tuple[int, int]]:
        return list(self.ids)

    def owns_network(self) -> bool:
        return self.network_is_ours

    def links(self) -> list[str]:
        return sorted(self.network.namespaces[HOST].links)

    def link_master(self, name: str) -> str:
        host = self.network.namespaces[HOST].links
        master = host[name].master if name in host else 0
        return next((link.name for link in host.values() if master and link.index == master), "")

    def routes(self) -> list[str]:
        return list(self.host_routes)

    def listeners(self, protocol: str) -> set[tuple[str, int]]:
        return set(self.listening[protocol])

    def listener_owner(self, protocol: str, port: int) -> str:
        return next((owner for (_, held), owner in self.listening[protocol].items() if held == port), "")

    # -- files of the host -------------------------------------------------------------------------------

    @_act
    def mkdir(self, path: str, mode: int = 0o755) -> None:
        for made in self.files.make_directories(path, mode):
            if made.startswith(f"{CGROUPS}/"):
                for name, text in self._control_files(made).items():
                    self.files.add(f"{made}/{name}", Node("file", text.encode()))

    def _control_files(self, cgroup: str) -> Mapping[str, str]:
        """What the kernel puts into a new control group."""
        return _V1_FILES[posixpath.basename(self._hierarchy(cgroup))] if self.legacy else _CONTROL_FILES

    @_act
    def write(self, path: str, text: str) -> None:
        head, _, name = path.rpartition("/")
        if name == "cgroup.procs" or (name == "tasks" and self.legacy):
            self._join(f"{head}/cgroup.procs", int(text) or self.me.pid)
        elif name == "cgroup.freeze":
            self.files.write(path, text.encode())
            self.files.write(f"{head}/cgroup.events", f"populated 1\nfrozen {text}\n".encode())
        elif name == "cgroup.subtree_control":
            self._turn_controllers(path, text.split())
        elif head.startswith("/proc/sys/net/ipv4/conf/") and name in _LINK_FILES:
            if posixpath.basename(head) not in (*self.links(), "all", "default"):
                raise fail(errno.ENOENT, path)
        else:
            self.files.write(path, text.encode())

    def wait_for(self, path: str, line: str, seconds: float) -> None:
        if line not in self.read(path).splitlines():
            raise fail(errno.ETIMEDOUT, path)

    def _join(self, path: str, pid: int) -> None:
        """Processes are in one control group of each hierarchy of the host, whoever moves them."""
        files = self.host.files
        files.get(path)
        if pid not in self.processes and pid != 1:
            raise fail(errno.ESRCH, path)
        root = self._hierarchy(path)
        for other, node in list(files.nodes.items()):
            if other.startswith(f"{root}/") and other.endswith("/cgroup.procs"):
                left = [each for each in node.content.decode().split() if each != str(pid)]
                left += [str(pid)] if other == files.real(path) else []
                files.nodes[other] = Node("file", "".join(f"{each}\n" for each in left).encode())

    def _hierarchy(self, path: str) -> str:
        """The root of the hierarchy that a control group or one of its files is in."""
        if not self.legacy:
            return CGROUPS
        return "/".join(path.split("/")[: CGROUPS.count("/") + 2])

    def _turn_controllers(self, path: str, words: Sequence[str]) -> None:
        """cgroup.subtree_control takes ``+memory -cpu`` and shows what is on (cgroups(7))."""
        now = self.read(path).split()
        for word in words:
            now = [each for each in now if each != word[1:]] + ([word[1:]] if word[0] == "+" else [])
        self.files.write(path, " ".join(now).encode())

    @_act
    def create(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        self.files.add(path, Node("file", _bytes(content), mode))

    @_act
    def replace(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        self.files.put(path, Node("file", _bytes(content), mode))

    @_act
    def unlink(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.remove(path)

    @_act
    def rmdir(self, path: str) -> None:
        if path.startswith(f"{CGROUPS}/") and self.exists(path):
            self._remove_cgroup(path)
        with contextlib.suppress(FileNotFoundError):
            self.files.remove_directory(path)

    def _remove_cgroup(self, path: str) -> None:
        """A control group goes with its files, unless there are processes or groups in it."""
        inside = [f"{path}/{name}" for name in self.listdir(path)]
        if self.read(f"{path}/cgroup.procs").strip() or any(map(self.is_dir, inside)):
            raise fail(errno.EBUSY, path)
        for each in inside:
            self.files.remove(each)

    @_act
    def rmtree(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.files.remove_tree(path)

    @_act
    def chown(self, path: str, uid: int, gid: int) -> None:
        node = self.files.get(path)
        self.files.nodes[self.files.place(path)] = Node(node.kind, node.content, node.mode, uid, gid)

    def owner(self, path: str) -> tuple[int, int]:
        node = self.files.get(path)
        return node.uid, node.gid

    @contextlib.contextmanager
    def locked(self, directory: str) -> Generator[None, None, None]:
        self.files.get(directory, "directory")
        yield

    @_act
    def copy_layers(self, layers: Sequence[str], destination: str, first_id: int = 0) -> None:
        """Without what they hide from each other."""
        self.files.copy_tree(layers[0], destination)
        for layer in layers[1:]:
            for path in self.files.below(self.real(layer)):
                self.files.nodes.setdefault(destination + path[len(self.real(layer)) :], self.files.nodes[path])

    @_act
    def copy_from_layers(self, layers: Sequence[str], path: str, destination: str) -> bool:
        found = next((f"{layer}{path}" for layer in layers if self.is_dir(f"{layer}{path}")), None)
        if found:
            self.rmtree(destination)
            self.files.copy_tree(found, destination)
        return found is not None

    @_act
    def set_quota(self, directory: str, size: int) -> None:
        self.files.get(directory, "directory")
        self.quotas[directory] = size

    @_act
    def forget_quota(self, directory: str) -> None:
        """What is limited is the directory: without it nobody finds the limit."""
        if self.is_dir(directory):
            self.quotas.pop(directory, None)

    def has_quota(self, path: str) -> bool:
        return self.keeps_quotas

    @_act
    def mkdir_like(self, path: str, model: str) -> None:
        like = self.files.get(model)
        with contextlib.suppress(FileExistsError):
            self.files.add(path, Node("directory", b"", like.mode, like.uid, like.gid))

    @_act
    def whiteout(self, path: str) -> None:
        self.files.add(path, Node("device"))

    # -- mounts ------------------------------------------------------------------------------------------

    @_act
    def mount_private(self) -> None:
        self._set("mount_private")

    @_act
    def mount_new(self, fstype: str, options: Mapping[str, str | None], attributes: int = 0) -> int:
        return self._open(Mount(fstype, "", dict(options), attributes))

    @_act
    def mount_overlay(self, lower: Sequence[int], layer: int, volatile: bool = False) -> int:
        options: dict[str, str | None] = {"lowerdir": ":".join(self._mount(fd).source for fd in lower)}
        if layer >= 0:
            options |= {"upperdir": f"{self._mount(layer).source}/upper"}
        return self._open(Mount("overlay", "", options | ({"volatile": None} if volatile else {})))

    @_act
    def open_path(self, path: str) -> int:
        self.files.get(path)
        return self._open(Mount("path", self.real(path)))

    @_act
    def open_below(self, directory: str, path: str) -> int:
        self.files.get(directory, "directory")
        self.files.make_directories(f"{directory}/{path}")
        return self._open(Mount("path", f"{directory}/{path}"))

    @_act
    def enter_directory(self, path: str, make: bool = True) -> None:
        if make:
            os.close(self.make_place(path))
        elif not self.is_dir(path):
            raise fail(errno.ENOENT, path)
        self._set("enter_directory", path)

    @_act
    def mount_clone(self, path: str | int, recursive: bool = True) -> int:
        if isinstance(path, int):
            return self._open(Mount("bind", self._mount(path).source))
        self.files.get(path)
        return self._open(Mount("bind", self.real(path)))

    @_act
    def mount_owners(self, tree: int, users: str, groups: str, recursive: bool = True) -> None:
        mount = self._mount(tree)
        mount.options = {**mount.options, "users": users, "groups": groups}

    @contextlib.contextmanager
    def shown_layers(self, paths: Sequence[str], users: str, groups: str) -> Generator[list[int], None, None]:
        found = [self.mount_clone(path, recursive=False) for path in paths]
        for tree in found:
            self.mount_owners(tree, users, groups, recursive=False)
        yield found
        for tree in found:
            os.close(tree)

    @_act
    def mount_attributes(self, tree: int, attributes: int, recursive: bool = True) -> None:
        self._mount(tree).attributes |= attributes

    @_act
    def mount_place(self, tree: int, target: str, directory: bool = True) -> None:
        os.close(self._at_place(target, directory))
        mount = self._mount(tree)
        mount.target = target
        self.mounted.append(mount)
        os.close(tree)

    @_act
    def make_place(self, target: str, directory: bool = True) -> int:
        return self._at_place(target, directory)

    def _at_place(self, target: str, directory: bool) -> int:
        target = posixpath.normpath(target)
        if not self.exists(target):
            self.files.make_directories(target if directory else posixpath.dirname(target))
            if not directory:
                self.files.put(target, Node("file"))
        return self._open(Mount("path", self.real(target)))

    @_act
    def enter_root(self, tree: int) -> None:
        self.root = self._mount(tree)
        os.close(tree)

    @_act
    def make_link(self, text: str, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            self.files.add(path, Node("link", text.encode(), 0o777))

    def read_inside(self, path: str, limit: int = MAX_FILE) -> str:
        if self.is_dir(path):
            raise fail(errno.EINVAL, path)
        return self.read(path, limit)

    def _open(self, mount: Mount) -> int:
        """A descriptor of its own for a mount: of an empty memory file, so that it can be closed as any other."""
        fd = os.memfd_create(mount.fstype)
        mount.inode = os.fstat(fd).st_ino
        self.descriptors[fd] = mount
        return fd

    def _mount(self, fd: int) -> Mount:
        """The mount behind a descriptor; one that was closed meanwhile may have become something else."""
        mount = self.descriptors.get(fd)
        if mount is None or os.fstat(fd).st_ino != mount.inode:
            raise fail(errno.EBADF, str(fd))
        return mount

    def close_all(self) -> None:
        """Close all descriptors that are still open, as the end of a process does."""
        for fd in list(self.descriptors):
            with contextlib.suppress(OSError):
                self._mount(fd)
                os.close(fd)
        self.descriptors.clear()

    # -- processes ---------------------------------------------------------------------------------------

    @_act
    def kill(self, pid: int, number: int) -> None:
        if pid in self.processes and number:
            self.end_process(pid)

    @_act
    def start_helper(self, words: Sequence[str], record: str, network: int) -> None:
        self.helpers[record] = tuple(words)

    def has_helper(self, record: str) -> bool:
        return record in self.helpers

    @_act
    def end_helper(self, record: str) -> None:
        self.helpers.pop(record, None)

    def _set(self, what: str, *values: Any) -> None:
        self.me.settings[what] = values

    @_act
    def unshare(self, flags: int) -> None:
        self._set("unshare", self.me.settings.get("unshare", (0,))[0] | flags)

    @_act
    def join_namespaces(self, pidfd: int, flags: int) -> None:
        self._set("join_namespaces", flags)

    @_act
    def set_hostname(self, name: str) -> None:
        self._set("set_hostname", name)

    @_act
    def set_rlimit(self, limit: int, soft: int, hard: int) -> None:
        self._set(f"set_rlimit {limit}", soft, hard)

    @_act
    def set_keep_caps(self, keep: bool) -> None:
        self._set("set_keep_caps", keep)

    @_act
    def drop_bounding(self, capability: int) -> None:
        self._set("drop_bounding", *self.me.settings.get("drop_bounding", ()), capability)

    @_act
    def set_capabilities(self, effective: int, permitted: int, inheritable: int) -> None:
        self._set("set_capabilities", effective, permitted, inheritable)

    @_act
    def set_ambient(self, capabilities: Sequence[int]) -> None:
        self._set("set_ambient", *capabilities)

    @_act
    def set_user(self, uid: int, gid: int, groups: Sequence[int]) -> None:
        self._set("set_user", uid, gid, tuple(groups))

    @_act
    def give_file(self, fd: int, uid: int) -> None:
        self._set("give_file", uid)

    @_act
    def set_no_new_privs(self) -> None:
        self._set("set_no_new_privs")

    @_act
    def load_filter(self, program: bytes) -> None:
        self._set("load_filter", program)

    # -- network -----------------------------------------------------------------------------------------

    def link_index(self, name: str) -> int:
        link = self.network.namespaces[HOST].links.get(name)
        if link is None:
            raise fail(errno.ENODEV, name)
        return link.index

    def gateways(self, pid: int) -> set[str]:
        if pid not in self.network.namespaces:
            raise fail(errno.ESRCH, f"/proc/{pid}/ns/net")
        return self.network.gateways(pid)

    def link_wait(self, names: Sequence[str], pid: int = HOST) -> None:
        for name in names:
            if name not in self.network.namespaces[pid].links:
                raise fail(errno.ENODEV, name)

    @_act
    def listen(self, kind: int, address: str, port: int) -> socket.socket:
        """A socket that nobody reaches."""
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    @_act
    def netlink(self, messages: Sequence[bytes], pid: int = 0) -> None:
        self.network.send(messages, pid)

    @_act
    def nft(self, commands: str) -> None:
        self.nftables.run(commands)

    @_act
    def nft_change(self, table: str, changes: Sequence[Change]) -> None:
        self.nftables.change(table, changes)

    def nft_elements(self, table: str, name: str) -> dict[str, str]:
        return dict(self.nftables.tables.get(table, {}).get(name, {}))

    def nft_packets(self, table: str, wanted: Sequence[Element]) -> list[int | None]:
        return [self.nftables.counted(table, each) for each in wanted]

    def is_local(self, address: str) -> bool:
        return address in self.local_addresses

    @_act
    def hear_deletions(self, table: str) -> Deletions:
        """Nobody but pycore changes rules here."""
        return _Silence(table)

    def flows(self, protocol: str, ports: tuple[int, int], version: int) -> list[Flow]:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        return [
            flow
            for of, flow in self.tracked
            if of == protocol and flow.family == family and ports[0] <= flow.port <= ports[1]
        ]

    def flows_from(self, source: str) -> list[Flow]:
        return [flow for _, flow in self.tracked if flow.source == source]

    @_act
    def forget_flows(self, unwanted: Sequence[Flow]) -> None:
        self.tracked = [each for each in self.tracked if each[1] not in unwanted]

    def nft_has(self, table: str) -> bool:
        return table in self.nftables.tables

    def nft_tables(self) -> list[str]:
        return [*self.nftables.tables, *self.nftables.foreign]

    def nft_contents(self, table: str, name: str = "") -> str:
        return self.nftables.foreign.get(table, {}).get(name, '{"nftables": []}')

    def nft_rules(self, table: str, chain: str) -> dict[int, str]:
        return {}


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _of_process(path: str) -> bool:
    return path.startswith("/proc/") and path.split("/")[2].isdigit()
