"""Images: one of about 450 MB and 12,000 files, made from this host's own, loaded and pulled by everybody.

No download: the registry is Debian's docker-registry, on the loopback device of the bench.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import stat
import statistics
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import measure
from pycore_images import documents, reference
from pycore_images.archives.opening import opened
from pycore_images.content import CONFIG, LAYER, MANIFEST, Descriptor
from pycore_images.fetching import fetch
from pycore_images.registry.hosts import Hosts
from pycore_images.registry.push import RegistrySink
from pycore_images.store import Store
from runtimes import TRUE, Engine, Podman, Pycore, PycoreInProcess, Runtime, run

sys.path.append(str(Path(__file__).parents[1]))  # for support
from support.registry import registry

FILES, BYTES = 12_000, 450_000_000
LAYERS = 4
MANY = 30
_SMALL, _LARGEST = 32 << 10, 8 << 20
_PLACES = ("/usr/lib", "/usr/share")


def images(directory: Path, runtimes: Sequence[Runtime], turns: int, others: bool) -> None:
    """Load, pull, pull a second one with the same layers, start from many; ``others`` are those that run nothing."""
    place = directory / "images"
    place.mkdir()
    trees = _trees(place)
    first = _made(place, "first", trees)
    second = _made(place, "second", [*trees, _small_tree(place, "more", 2_000_000)])
    files = sum(len(files) for _, _, files in os.walk(place / "tree"))
    print(f"  {files} files, {first.unpacked / 1e6:.0f} MB, {first.size / 1e6:.0f} MB compressed, {LAYERS} layers")
    with ExitStack() as stack:
        movers = [*_movers(place, runtimes, others)]
        times = {mover.name: mover.load for mover in movers}
        _compare("load", movers, lambda name: times[name](first.archive), turns)
        if shutil.which("docker-registry") is None:
            print("docker-registry: not installed, nothing is pulled", file=sys.stderr)
        else:
            address = stack.enter_context(registry(place / "registry"))
            names = [first.push(f"{address}/bench/first:1"), second.push(f"{address}/bench/second:1")]
            pulls = {mover.name: mover.pull for mover in movers}
            _compare("pull", movers, lambda name: pulls[name](names[0]), turns)
            _compare_second(movers, names, turns)
    starting = [each for each in runtimes if isinstance(each, Engine | PycoreInProcess) or type(each) is Pycore]
    _start(place, starting, directory / "image")


# -- who takes part --------------------------------------------------------------------------------------


@dataclass
class Mover:
    """Something that brings images to this host, and forgets them again."""

    name: str
    load: Callable[[Path], object]
    pull: Callable[[str], object]
    forget: Callable[[], object]


def _movers(place: Path, runtimes: Sequence[Runtime], others: bool) -> Iterator[Mover]:
    for runtime in runtimes:
        if type(runtime) is Pycore:
            yield _pycore(runtime)
        elif isinstance(runtime, Engine):
            yield _engine(runtime)
    if not others:
        return
    if shutil.which("skopeo") and shutil.which("umoci"):
        yield _skopeo(place / "skopeo")
    yield Mover("tar (unpack only)", lambda archive: _untar(place, archive), lambda _: None, lambda: None)


def _pycore(runtime: Pycore) -> Mover:
    return Mover(
        runtime.name,
        lambda archive: runtime.command("load", "-q", "-i", archive),
        lambda name: runtime.command("pull", "-q", name),
        lambda: runtime.command("image", "prune", "-a"),
    )


def _engine(runtime: Engine) -> Mover:
    plain = ["--tls-verify=false"] if isinstance(runtime, Podman) else []

    def forget() -> None:
        kept = {"bench:latest", "localhost/bench:latest"}
        listed = run(*runtime.command, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
        if gone := [name for name in listed if name not in kept]:
            run(*runtime.command, "rmi", "-f", *gone)

    return Mover(
        runtime.name,
        lambda archive: run(*runtime.command, "load", "-q", "-i", archive),
        lambda name: run(*runtime.command, "pull", "-q", *plain, name),
        forget,
    )


def _skopeo(place: Path) -> Mover:
    def copy(source: str, *options: str) -> None:
        run("skopeo", "copy", "-q", *options, source, f"oci:{place}/layout:1")
        run("umoci", "unpack", "--image", f"{place}/layout:1", place / "bundle")

    def forget() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()

    return Mover(
        "skopeo + umoci",
        lambda archive: copy(f"docker-archive:{archive}"),
        lambda name: copy(f"docker://{name}", "--src-tls-verify=false"),
        forget,
    )


def _untar(place: Path, archive: Path) -> None:
    """What GNU tar takes for the same layers."""
    target = place / "untarred"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for layer in sorted(archive.parent.glob("first-*.tar")):
        run("tar", "-C", target, "-xpf", layer)


# -- timing ----------------------------------------------------------------------------------------------


def _compare(what: str, movers: Sequence[Mover], act: Callable[[str], object], turns: int) -> None:
    """In turns, and each time from nothing."""
    times = {mover.name: measure.Times() for mover in movers if what == "load" or not mover.name.startswith("tar")}
    for _ in range(turns):
        for mover in movers:
            if mover.name in times:
                mover.forget()
                os.sync()
                times[mover.name].seconds.append(measure.seconds_of(lambda name=mover.name: act(name)))
    for mover in movers:
        mover.forget()
    _print(what, times)


def _compare_second(movers: Sequence[Mover], names: Sequence[str], turns: int) -> None:
    """A pull where all layers but a small one are here."""
    times = {mover.name: measure.Times() for mover in movers if not mover.name.startswith(("tar", "skopeo"))}
    for mover in movers:
        for _ in range(turns if mover.name in times else 0):
            mover.forget()
            mover.pull(names[0])
            os.sync()
            times[mover.name].seconds.append(measure.seconds_of(lambda mover=mover: mover.pull(names[1])))
        mover.forget()
    _print("pull a second that shares layers", times)


def _print(what: str, times: dict[str, measure.Times]) -> None:
    ours = times.get(Pycore.name)
    for name, taken in times.items():
        ratio = f"{taken.best / ours.best:8.2f} x pycore" if ours and name != Pycore.name else ""
        print(f"  {what:34} {name:20} {taken.best:8.2f} {taken.median:8.2f} s {ratio}", flush=True)


def _start(place: Path, runtimes: Sequence[Engine | Pycore], root: Path) -> None:
    """The same small root, as one layer, and with others over it."""
    layers = [_small_tree(place, f"over{number}", 1000) for number in range(MANY - 1)]
    few, many = _made(place, "few", [root]), _made(place, "many", [root, *layers])
    for runtime in runtimes:
        starts = {made.name: _started(runtime, made) for made in (few, many)}
        taken = measure.in_turns(starts, 60, 60)
        one, other = taken["few"], taken["many"]
        # Neighbours in time, which meet the same noise: the host's own is larger than what is asked for.
        more = statistics.median(b - a for a, b in zip(one.seconds, other.seconds, strict=True))
        words = f"best {one.best * 1e3:8.2f} and {other.best * 1e3:8.2f}"
        words += f", median {one.median * 1e3:8.2f} and {other.median * 1e3:8.2f}, in pairs {more * 1e3:+.2f} ms"
        print(f"  {f'start from 1 layer and from {MANY}':34} {runtime.name:20} {words}", flush=True)


def _started(runtime: Engine | Pycore, made: Made) -> Callable[[], object]:
    """What starts a container of an image, which has been loaded."""
    if isinstance(runtime, Engine):
        run(*runtime.command, "load", "-q", "-i", made.archive)
        command = (*runtime.command, "run", "--rm", "--network", "none", "--cgroup-parent", "/pycore-bench")
        return lambda: run(*command, made.tag, TRUE)
    if isinstance(runtime, PycoreInProcess):
        store = Store(runtime.directory / "data" / "images")
        with opened(store, str(made.archive)) as (found,):
            fetch(store, found.source, taken=lambda image: [store.tag(name, image.root) for name in found.names])
        app = runtime.app_of(made.name, made.tag)
        return lambda: runtime.run(app)
    runtime.command("load", "-q", "-i", made.archive)
    return lambda: runtime.command("run", "--rm", "--network", "none", made.tag, TRUE)


# -- making ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """An image, as docker-archive and as what a registry keeps."""

    name: str
    archive: Path
    contents: tuple[tuple[Descriptor, Path], ...]
    """The configuration, and layers compressed."""
    manifest: bytes
    unpacked: int

    @property
    def tag(self) -> str:
        return f"bench-{self.name}:1"

    @property
    def size(self) -> int:
        return sum(descriptor.size for descriptor, _ in self.contents)

    def push(self, name: str) -> str:
        """Into a registry; the name."""
        with RegistrySink(reference.parse(name), Hosts(), {"HOME": "/nowhere"}) as sink:
            for descriptor, path in self.contents:
                if not sink.has(descriptor):
                    with path.open("rb") as file:
                        sink.put(descriptor, file)
            sink.finish(Descriptor(MANIFEST, _digest(self.manifest), len(self.manifest)), self.manifest)
        return name


def _made(place: Path, name: str, trees: Sequence[Path]) -> Made:
    with ThreadPoolExecutor(4) as pool:
        layers = [*pool.map(lambda each: _layer(place / f"{name}-{each[0]:02}.tar", each[1]), enumerate(trees))]
    config = documents.encode(
        {
            "os": "linux",
            "architecture": documents.host_platform().architecture,
            "config": {"Cmd": [TRUE]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id, _ in layers]},
        }
    )
    about = Descriptor(CONFIG, _digest(config), len(config))
    (place / about.hex).write_bytes(config)
    contents = [(about, place / about.hex), *((blob, path.with_suffix(".tar.gz")) for path, _, blob in layers)]
    archive = place / f"{name}.docker"
    with tarfile.open(archive, "w") as tar:
        entry = {"Config": f"{about.hex}.json", "RepoTags": [f"bench-{name}:1"], "Layers": []}
        for path, diff_id, _ in layers:
            within = f"{diff_id.removeprefix('sha256:')}/layer.tar"
            tar.add(path, within)
            entry["Layers"].append(within)
        _add(tar, f"{about.hex}.json", config)
        _add(tar, "manifest.json", json.dumps([entry]).encode())
    unpacked = sum(path.stat().st_size for path, _, _ in layers)
    manifest = documents.manifest_of(about, [blob for _, _, blob in layers])
    return Made(name, archive, tuple(contents), manifest, unpacked)


def _layer(path: Path, tree: Path) -> tuple[Path, str, Descriptor]:
    """The archive of a tree; its diff id; what it is compressed."""
    with tarfile.open(path, "w") as tar:
        tar.add(tree, ".")
    data = path.read_bytes()
    compressed = gzip.compress(data, 6, mtime=0)
    path.with_suffix(".tar.gz").write_bytes(compressed)
    return path, _digest(data), Descriptor(f"{LAYER}+gzip", _digest(compressed), len(compressed))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _small_tree(place: Path, name: str, size: int) -> Path:
    tree = place / name
    tree.mkdir()
    (tree / name).write_bytes(random.Random(name).randbytes(size))
    return tree


def _trees(place: Path) -> list[Path]:
    """Files of this host, in so many trees of as many files each."""
    found = [*_chosen()]
    if len(found) < FILES:
        print(f"this host has only {len(found)} files for an image", file=sys.stderr)
    trees = [place / "tree" / str(number) for number in range(LAYERS)]
    for number, path in enumerate(found):
        target = trees[number * LAYERS // len(found)] / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return trees


def _chosen() -> Iterator[str]:
    """Small files and large ones, so many of each that they come to the count and to the bytes."""
    small, large = _files(0, _SMALL), _files(_SMALL, _LARGEST)
    count = total = 0
    while count < FILES:
        found = next(large if total < BYTES / FILES * count else small, None) or next(small, None) or next(large, None)
        if found is None:
            return
        path, size = found
        count, total = count + 1, total + size
        yield path


def _files(least: int, most: int) -> Iterator[tuple[str, int]]:
    for place in _PLACES:
        for directory, names, files in os.walk(place):
            names.sort()
            for name in sorted(files):
                info = os.lstat(path := os.path.join(directory, name))
                if stat.S_ISREG(info.st_mode) and least <= info.st_size < most:
                    yield path, info.st_size
