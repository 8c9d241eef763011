"""``volumes`` and ``tmpfs``: what a container has besides its root, with every storage driver."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import Host, hookimpl
from pycore.ops import Operation
from pycore.source.wording import did_you_mean
from pycore.spec import App, Change, Container, Many, Name, Section, Text, looks, pick, setting

from pycore_storage.notation import TmpfsMount, VolumeMount, parse_tmpfs, parse_volume
from pycore_storage.ops.mounts import Bind, Tmpfs, Volume
from pycore_storage.sources import host_path

SHARED = ".shared"
"""The directory of volumes with a name of their own; no app can be called that."""


def _volume(text: str) -> str:
    parse_volume(text)
    return text


def _tmpfs(text: str) -> str:
    parse_tmpfs(text)
    return text


VolumeText = Annotated[
    Text, pydantic.AfterValidator(_volume), looks("volume", r"[A-Za-z0-9./][^:\u0000]*:/[^:\u0000]+(:(ro|rw))?")
]
TmpfsText = Annotated[
    Text,
    pydantic.AfterValidator(_tmpfs),
    looks("tmpfs", r"/[^:\u0000]+(:(size=[0-9]{1,6}[KMG]?|mode=[0-7]{3,4}|exec)(,noexec)?)?"),
]


class Mounts(Section):
    """What a container finds in places of its file system."""

    table: ClassVar[str] = "container.*.storage"

    volumes: Many[VolumeText] = setting(
        (),
        doc="Volumes and paths of the host with their places inside: SOURCE:TARGET, or SOURCE:TARGET:ro. A source that "
        "begins with a dot or a slash is a path of the host, a relative one from the directory of the spec; any "
        "other is the name of a table [volume.NAME].",
        change=Change.RESTART,
        example=["data:/var/lib/data", "./site:/srv:ro"],
        flags=("-v", "--volume"),
    )
    tmpfs: Many[TmpfsText] = setting(
        (),
        doc="Places inside that are in memory and empty at each start: TARGET, or TARGET with options: size=64M, "
        "mode=1777, exec. Without a size the kernel allows half of the memory; the container's own limit counts too.",
        change=Change.RESTART,
        example=["/run", "/tmp:size=64M,mode=1777"],
        flags=("--tmpfs",),
    )


class NamedVolume(Section):
    """Data that outlives containers: it is kept until somebody removes it, also when the app goes."""

    table: ClassVar[str] = "volume.*"

    name: Name | None = setting(
        None,
        doc="The volume's name on the host. Apps that name it so share it. Without it the volume is the app's own.",
        example="uploads",
    )


@hookimpl
def pycore_sections() -> Sequence[type[Section]]:
    """The containers' mounts, and the volumes themselves."""
    return [Mounts, NamedVolume]


@hookimpl
def pycore_run(source: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    """``pycore run -v data:/srv`` means the same ``data`` every time, as in Docker."""
    mounts = _readable(source["container"][name].get("storage", {}).get("volumes", ()))
    names = {mount.source for mount in mounts if mount.named}
    return {"volume": {each: {"name": each} for each in sorted(names)}} if names else {}


def _readable(texts: Iterable[str]) -> Iterator[VolumeMount]:
    for text in texts:
        try:
            yield parse_volume(text)
        except ValueError:
            continue  # the loader will say it with its place


@hookimpl
def pycore_validate(app: App) -> Iterator[Problem]:
    """Volumes that are not declared, and places that are taken twice."""
    for container in app.containers.values():
        if Mounts in container:
            table = ("container", container.service, "storage")
            yield from _undeclared(container, table)
            yield from _taken_twice(container[Mounts], table)


def _undeclared(container: Container, table: tuple[str, ...]) -> Iterator[Problem]:
    known = container.app.tables.get("volume", {})
    for index, mount in enumerate(map(parse_volume, container[Mounts].volumes)):
        if mount.named and mount.source not in known:
            hint = did_you_mean(mount.source, known) or f"declare it: [volume.{mount.source}]"
            yield Problem((*table, "volumes", index), f'there is no volume "{mount.source}"', hint=hint)


def _taken_twice(mounts: Mounts, table: tuple[str, ...]) -> Iterator[Problem]:
    places = [("volumes", index, parse_volume(text).target) for index, text in enumerate(mounts.volumes)]
    places += [("tmpfs", index, parse_tmpfs(text).target) for index, text in enumerate(mounts.tmpfs)]
    first: dict[str, str] = {}
    for key, index, target in places:
        place = f"{key}[{index}]"
        if first.setdefault(target, place) != place:
            yield Problem((*table, key, index), f"{target} is taken by {first[target]} already")


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Make the named volumes that are used."""
    for index, mount in enumerate(map(parse_volume, container[Mounts].volumes)):
        path = source_path(mount, container, host)
        if mount.named:
            yield Volume(path, str(host.data_dir / "volumes"))
        elif not host.look.exists(path):
            host.problems.append(
                Problem(("storage", "volumes", index), f"there is no {path}", hint=f"mkdir -p {shlex.quote(path)}")
            )


@hookimpl
def pycore_enter(container: Container, host: Host) -> list[Operation]:
    """Put all in its place, the outer places first."""
    mounts = container[Mounts]
    placed = {mount.target: _bind(mount, container, host) for mount in map(parse_volume, mounts.volumes)}
    placed |= {memory.target: _tmpfs_mount(memory) for memory in map(parse_tmpfs, mounts.tmpfs)}
    return [placed[target] for target in sorted(placed, key=lambda target: (target.count("/"), target))]


def _bind(mount: VolumeMount, container: Container, host: Host) -> Operation:
    path = source_path(mount, container, host)
    directory = mount.named or host.look.is_dir(path)
    return Bind(path, mount.target, mount.read_only, directory, recursive=not mount.named, own=mount.named)


def _tmpfs_mount(memory: TmpfsMount) -> Operation:
    return Tmpfs(memory.target, memory.size, memory.mode, memory.executable)


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    """Where each volume is on the host, and its place inside."""
    mounts = map(parse_volume, container[Mounts].volumes)
    return {
        "volumes": [
            {"source": source_path(mount, container, host), "target": mount.target, "read_only": mount.read_only}
            for mount in mounts
        ]
    }


def source_path(mount: VolumeMount, container: Container, host: Host) -> str:
    """Where a volume or a path of the host is: ``volumes/APP/NAME``, or ``volumes/.shared/NAME``."""
    if not mount.named:
        return host_path(container, mount.source)
    volumes = host.data_dir / "volumes"
    shared = pick(container.app.tables["volume"][mount.source], NamedVolume).name
    return str(volumes / SHARED / shared if shared else volumes / container.app.name / mount.source)
