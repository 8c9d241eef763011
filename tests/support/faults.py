"""A host in memory on which calls fail: apps that need every operation there is, and what is done to them."""

from __future__ import annotations

import atexit
import contextlib
import copy
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from pycore.engine import Engine
from pycore.life.execute import Executor
from pycore.ops import Operation
from pycore.plugins import Plugins
from pycore.source.load import load_source
from pycore.spec import App
from pycore.testing.fake import FakeKernel, Mount
from pycore.testing.launcher import FakeSpawner
from pycore_images.store import Store

from support.kept import keep
from support.layered import MadeImage, entry, tar

Source = dict[str, Any]

FILES = {
    "/usr/bin/pasta": "",
    "/dev/net/tun": "",
    "/opt/": "",
    "/srv/site/": "",
    "/srv/image/": "",
    "/srv/image/etc/passwd": "",
}

KEPT = ("/proc/sys/net/", "/sys/fs/cgroup/cgroup.subtree_control")
"""Switches of the host that stay on: nobody can tell who relies on them by then."""

WEB: Source = {
    "image": "host",
    "command": ["sleep", "inf"],
    "stop_signal": "SIGKILL",
    "network": {
        "ports": ["8080:80", "127.0.0.1:5353:53/udp", "9000-9002:9000-9002"],
        "dns": ["192.0.2.1"],
        "extra_hosts": {"db": "192.0.2.7"},
    },
    "storage": {
        "volumes": ["data:/data", "/srv/site:/srv:ro"],
        "tmpfs": ["/run"],
        "read_only": True,
        "volatile": True,
        "size": "1G",
    },
    "resources": {"memory": "64M", "cpus": 0.5, "cpu_shares": 512, "pids": 100, "ulimits": {"nofile": 64}},
    "isolation": {"hostname": "web.example", "cap_drop": ["ALL"]},
}
"""Most of what there is, in a bridged network."""

MAPPED: Source = {
    "image": "/srv/image",
    "command": ["sleep", "inf"],
    "stop_signal": "SIGKILL",
    "network": {"driver": "none"},
    "isolation": {"userns": "700000:65536", "user": "1000:1000"},
}
"""In a user namespace, from a directory."""

COPIED: Source = {
    "image": "/srv/image",
    "command": ["sleep", "inf"],
    "stop_signal": "SIGKILL",
    "network": {"driver": "host"},
    "storage": {"driver": "vfs", "size": "1G"},
    "isolation": {"no_new_privileges": False},
}
"""A copy of a directory, on the host's network, with the filter loaded early."""


LAN: Source = {
    "image": "/srv/image",
    "command": ["sleep", "inf"],
    "stop_signal": "SIGKILL",
    "network": {"networks": ["lan", "default"], "ports": [{"port": 80, "host_port": 8081, "proxy": True}]},
}
"""In the neighbourhood of the host and in a bridged network, with a port that the supervisor serves."""

BOUND: Source = {
    "image": "/srv/image",
    "command": ["sleep", "inf"],
    "stop_signal": "SIGKILL",
    "network": {"egress": ["10.0.0.0/8:443", "example.org:*"]},
}
"""One that may not send to everybody."""

OUTWARD: Source = {
    "image": "host",
    "command": ["sleep", "inf"],
    "stop_signal": "SIGKILL",
    "network": {"driver": "pasta", "ports": ["8082:80"]},
}
"""A normal user's way out."""

BESIDE: Source = {**OUTWARD, "network": {"driver": "host"}}
"""A normal user's, on the host's network."""

KEPT_NAME, PULLED_NAME = "localhost/kept:1", "registry.example/pulled:1"
ARCHIVE = "kept.tar"
"""In the world's own place."""


def _of(image: str) -> Source:
    more = {"network": {"driver": "none"}, "stop_signal": "SIGKILL"}
    return {"image": image, "command": ["sleep", "inf"], **more}


def of_images() -> dict[str, Source]:
    """Containers of an image that is here and asks for a volume, of an archive, and of one in a registry."""
    return {"kept": _of(KEPT_NAME), "loaded": _of(f"{_base()}/{ARCHIVE}"), "pulled": _of(PULLED_NAME)}


def of_networks() -> Source:
    """An app with a container in the host's neighbourhood, and one that is bound."""
    lan = {"driver": "macvlan", "parent": "lo", "subnets": ["192.0.2.0/24"], "gateways": ["192.0.2.1"]}
    return app_of(lan=LAN, bound=BOUND) | {"network": {"lan": lan}}


STORED = ("hold", "release", "add_document", "take_blob", "take_layer", "tag")
"""What changes a store of images, which is on the real disk, and can fail like a call to the host."""


def app_of(**containers: Source) -> Source:
    """An app with these containers, and the volume that they use."""
    return {"name": "shop", "container": copy.deepcopy(containers), "volume": {"data": {}}}


def changed(source: Source, **tables: Any) -> Source:
    """The app with other fields in its container ``web``; None takes one away."""
    after = copy.deepcopy(source)
    web = after["container"]["web"]
    for table, value in tables.items():
        web[table] = {**web.get(table, {}), **value} if isinstance(value, dict) else value
    return after


@cache
def _base() -> Path:
    """One place for all worlds, one after the other: the names of things on the host follow from it."""
    base = Path(tempfile.mkdtemp(prefix="pycore-faults-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    return base


@cache
def _images() -> Path:
    """A store with an image, and an archive of another: to be copied, as to make them takes longer."""
    place = Path(tempfile.mkdtemp(prefix="pycore-faults-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    store = Store(place / "store")
    store.tag(KEPT_NAME, keep(store, "one", "two", Volumes={"/own": {}}))
    (place / ARCHIVE).write_bytes(tar(entry("etc"), entry("etc/name", b"archived")))
    return place


@dataclass
class World:
    """An engine on a host in memory: with control groups ``v2`` or ``v1``, with layers in ``memory``, with
    ``images`` in its store, in an archive and in a registry, or of a normal user (``own``).
    """

    plugins: Plugins
    variant: str = "v2"
    culprits: list[str] = field(default_factory=list[str])
    """What the operations whose calls failed were about, in their own words."""
    met: set[type[Operation]] = field(default_factory=set[type[Operation]])

    def __post_init__(self) -> None:
        self.base = _base()
        self.kernel = FakeKernel(FILES, legacy=self.variant == "v1")
        self.store = Store(self.base / "data/images")
        self._changed = contextlib.ExitStack()
        if self.variant == "images":
            self._bring_images()
        self.kernel.mounted.append(Mount("ext4", target="/opt"))
        if self.variant == "memory":
            self.kernel.filesystem = lambda path: "overlay"  # type: ignore[method-assign]
        elif self.variant == "own":
            self.kernel.ids = [(0, 1), (1, 65536)]
            self.kernel.network_is_ours = False
        self.spawner = FakeSpawner(self.kernel)
        self.kernel.faults.hit = self._note_culprit
        self.engine = self._open()
        self.clean = self.look()

    def _bring_images(self) -> None:
        shutil.copytree(_images() / "store", self.store.root, symlinks=True)
        shutil.copyfile(_images() / ARCHIVE, self.base / ARCHIVE)
        self.kernel.add_file(f"{self.base}/{ARCHIVE}", "an archive")
        for layer in (self.store.root / "layers").iterdir():
            self._show_layer(layer / "tree")
        for name in STORED:
            self._changed.enter_context(mock.patch.object(Store, name, self._failing(name)))
        pulled = MadeImage([tar(entry("etc"), entry("etc/name", b"pulled"))])
        self._changed.enter_context(mock.patch("pycore_images.registered._source", return_value=nullcontext(pulled)))

    def _show_layer(self, tree: Path) -> None:
        """The host in memory sees what is on the disk as an empty directory."""
        self.kernel.add_file(f"{tree}/", "")

    def _failing(self, name: str) -> Callable[..., object]:
        """A method of the store as one of the calls that can fail."""
        real = getattr(Store, name)

        def call(store: Store, *arguments: Any, **keywords: Any) -> object:
            if store.root == self.store.root:
                self.kernel.faults.check(f"{name}{arguments}")
            result = real(store, *arguments, **keywords)
            if name == "take_layer":
                self._show_layer(store.layer_tree(arguments[1]))
            return result

        return call

    def _open(self) -> Engine:
        engine = Engine(
            self.base / "run", self.base / "data", plugins=self.plugins, kernel=self.kernel, starts=1,
            launcher=self.spawner.connect, executor=Executor(on_boundary=self._note_met),
        )  # fmt: skip
        engine.open()
        return engine

    def take_over(self) -> None:
        """Another engine comes."""
        self.engine.close()
        self.engine = self._open()

    def _note_met(self, when: str, operation: Operation) -> None:
        self.met.add(type(operation))

    def _note_culprit(self, call: str) -> None:
        """The innermost operation that is at work, or the call itself where it is one of the core's own acts."""
        frame = sys._getframe()
        while frame:
            me = frame.f_locals.get("self")
            if isinstance(me, Operation):
                self.culprits.append(me.explain())
                return
            frame = frame.f_back  # type: ignore[assignment]
        self.culprits.append("")

    def app(self, source: Source) -> App:
        return load_source(source, directory=Path("/srv"), plugins=self.plugins)

    def look(self) -> dict[str, object]:
        """The host, but for what is kept on purpose (volumes, caches, forwarding, where the resolver was last) and
        directories that are empty.
        """
        kept = (f"{self.base}/data/volumes", f"{self.base}/data/cache", f"{self.base}/run/resolver", *KEPT)
        return {
            key: value
            for key, value in self.kernel.snapshot(*kept).items()
            if not (key.startswith(f"file {self.base}") and repr(value).startswith("directory"))
            and not key.endswith(("/cgroup.events", "/cgroup.freeze"))
        } | self.holds()

    def holds(self) -> dict[str, object]:
        """What is held of the store."""
        return {f"hold {user}": digests for user, digests in self.store.holds().items()}

    def records(self) -> dict[str, tuple[str, str, bool]]:
        """Container to id, status, and whether it is paused."""
        return {
            record.full_name: (record.id, record.status, bool(record.paused)) for record in self.engine.containers()
        }

    def calls(self) -> int:
        """How many calls have been made that could have failed."""
        return len(self.kernel.calls)

    def down(self) -> None:
        """Take everything down, and let the engine go."""
        for name in {record.app for record in self.engine.containers()} | {
            app.name for app in self.engine.state.apps()
        }:
            self.engine.down(name)
        self.engine.close()

    def discard(self) -> None:
        """Remove what the engine itself keeps on the real disk."""
        self.engine.close()
        self._changed.close()
        shutil.rmtree(self.base, ignore_errors=True)


@contextmanager
def world(plugins: Plugins, variant: str = "v2") -> Iterator[World]:
    """A world for the length of a with block."""
    made = World(plugins, variant)
    try:
        yield made
    finally:
        made.discard()


Act = Callable[[World], object]


@dataclass(frozen=True)
class Case:
    """Something that is done, and what was done before it."""

    name: str
    before: tuple[Act, ...]
    act: Act
    puts_back: bool = True
    """Whether what was there is there again when it fails; else it has gone half the way, and is repeated."""


def apply(source: Source) -> Act:
    return lambda world: world.engine.apply(world.app(source))


def verb(name: str, container: str = "web") -> Act:
    """A verb for one container."""
    return lambda world: getattr(world.engine, name)(f"shop/{container}")


def run(world: World, *, hold: bool = False) -> object:
    source = app_of(web=WEB)
    app = world.app(source | {"container": {"shop": source["container"]["web"]}})
    return world.engine.run(app, hold=True) if hold else world.engine.run(app)


def down(world: World) -> object:
    return world.engine.down("shop")


def words_of(error: BaseException) -> str:
    """All that is said, of this error and of those that it came of."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in seen:
            seen.append(each)
            waiting += [each.__cause__, each.__context__]
    return "\n".join(words for each in seen for words in (str(each), *getattr(each, "__notes__", ())))
