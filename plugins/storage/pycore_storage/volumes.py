"""``volumes`` and ``tmpfs``: what a container has besides its root, with every storage driver."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import DiskUse, Host, hookimpl
from pycore.ops import Operation
from pycore.source.wording import did_you_mean
from pycore.spec import App, Change, Container, Many, Name, Section, Text, looks, pick, setting

from pycore_storage.notation import TmpfsMount, VolumeMount, parse_target, parse_tmpfs, parse_volume
from pycore_storage.ops.mounts import Bind, OwnVolume, Tmpfs, Volume
from pycore_storage.sources import host_path
from pycore_storage.volumestore import VolumeStore

MAX_ID = (1 << 32) - 2


def _volume(text: str) -> str:
    parse_volume(text)
    return text


def _tmpfs(text: str) -> str:
    parse_tmpfs(text)
    return text


VolumeText = Annotated[
    Text,
    pydantic.AfterValidator(_volume),
    looks(
        "volume",
        r"[A-Za-z0-9./][^:\u0000]*:/[^:\u0000]+(:(ro|rw|nocopy|uid=[0-9]{1,9}|gid=[0-9]{1,9}|subpath=[^:,\u0000]+)"
        r"(,(nocopy|gid=[0-9]{1,9}))?)?",
    ),
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
        doc="Volumes and paths of the host with their places inside: SOURCE:TARGET, or SOURCE:TARGET:OPTIONS. A source "
        "that begins with a dot or a slash is a path of the host, a relative one from the directory of the spec; any "
        "other is the name of a table [volume.NAME]. Options, with commas: `ro`; `subpath=DIRECTORY` of the source; "
        "`uid=N` and `gid=N`, whose the files of the source's owner are inside; `nocopy`, for a volume that begins "
        "empty instead of with what the image has in its place.",
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
    external: bool = setting(
        False,
        doc="Whether the volume is made by somebody else, `pycore volume create` say: it must be there. Its name on "
        "the host is that of the table, unless `name` says another.",
        example=True,
    )
    uid: Annotated[int, pydantic.Field(ge=0, le=MAX_ID)] | None = setting(
        None,
        doc="Whose the files of the volume's owner are inside, and what that user writes is the owner's; the disk does "
        "not change. A mount's own `uid=` counts more.",
        change=Change.RESTART,
        example=1000,
    )
    gid: Annotated[int, pydantic.Field(ge=0, le=MAX_ID)] | None = setting(
        None, doc="The same for the group.", change=Change.RESTART, example=1000
    )
    labels: dict[Text, Text] = setting(
        {}, doc="Words for people and tools, noted when the volume is made.", change=Change.NOTHING
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
    """Make the named volumes that are used, and those that the image asks for."""
    layers = base_layers(container)
    for index, mount in enumerate(map(parse_volume, container[Mounts].volumes)):
        path = source_path(mount, container, host)
        place = ("storage", "volumes", index)
        if not mount.named:
            if not host.look.exists(path):
                hint = f"mkdir -p {shlex.quote(path)}"
                host.problems.append(Problem(place, f"there is no {path}", hint=hint))
            continue
        volume = pick(container.app.tables["volume"][mount.source], NamedVolume)
        name = name_of(mount, container)
        if volume.external and not host.look.is_dir(path):
            hint = f"pycore volume create {name}"
            host.problems.append(Problem(place, f"there is no volume {name}, which is external", hint=hint))
            continue
        store = VolumeStore(host.data_dir)
        first = layers if mount.copied and not mount.subpath else ()
        labels = tuple(sorted(volume.labels.items()))
        yield Volume(path, str(store.root), mount.target if first else "", first, str(store.note(name)), labels)
    for target in own_volumes(container):
        yield OwnVolume(own_volume(target, container, host), str(host.container_dir(container)), target, layers)


def base_layers(container: Container) -> tuple[str, ...]:
    """The layers from which a new volume's content comes: those of an image, not of the host or of a directory."""
    return container.image.layers if container.image.digest else ()


_THE_KERNELS = frozenset({"/dev", "/sys"})
"""What is there instead of an image's files; an empty volume in its place would be of no use to any program."""


def own_volumes(container: Container) -> list[str]:
    """Places for which the image asks for a volume, and for which the spec has nothing."""
    mounts = container[Mounts]
    taken = {parse_volume(text).target for text in mounts.volumes} | {parse_tmpfs(text).target for text in mounts.tmpfs}
    places: list[str] = []
    for text in container.image.config.volumes:
        try:
            places.append(parse_target(text))
        except ValueError:
            continue  # what cannot be mounted on, /proc say, is the image's mistake
    return sorted(set(places) - taken - _THE_KERNELS)


def own_volume(target: str, container: Container, host: Host) -> str:
    """Where such a volume is: with the container, and it goes with it."""
    name = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return str(host.container_dir(container) / "volumes" / name)


@hookimpl
def pycore_enter(container: Container, host: Host) -> list[Operation]:
    """Put all in its place, the outer places first."""
    mounts = container[Mounts]
    placed = {mount.target: _bind(mount, container, host) for mount in map(parse_volume, mounts.volumes)}
    placed |= {memory.target: _tmpfs_mount(memory) for memory in map(parse_tmpfs, mounts.tmpfs)}
    for target in own_volumes(container):
        placed[target] = Bind(own_volume(target, container, host), target, recursive=False, own=True)
    return [placed[target] for target in sorted(placed, key=lambda target: (target.count("/"), target))]


def _bind(mount: VolumeMount, container: Container, host: Host) -> Operation:
    path = source_path(mount, container, host)
    directory = mount.named or bool(mount.subpath) or host.look.is_dir(path)
    uid, gid = mount.uid, mount.gid
    if mount.named:
        volume = pick(container.app.tables["volume"][mount.source], NamedVolume)
        uid = uid if uid >= 0 or volume.uid is None else volume.uid
        gid = gid if gid >= 0 or volume.gid is None else volume.gid
    return Bind(
        path,
        mount.target,
        mount.read_only,
        directory,
        recursive=not mount.named,
        subpath=mount.subpath,
        own=mount.named,
        uid=uid,
        gid=gid,
    )


def _tmpfs_mount(memory: TmpfsMount) -> Operation:
    return Tmpfs(memory.target, memory.size, memory.mode, memory.executable)


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, Any]:
    """Where each volume is on the host, and its place inside."""
    mounts = map(parse_volume, container[Mounts].volumes)
    named = [
        {"source": source_path(mount, container, host), "target": mount.target, "read_only": mount.read_only}
        for mount in mounts
    ]
    own = [
        {"source": own_volume(target, container, host), "target": target, "read_only": False}
        for target in own_volumes(container)
    ]
    return {"volumes": named + own}


@hookimpl
def pycore_disk(host: Host, containers: Sequence[Container]) -> Iterator[DiskUse]:
    """The named volumes; those of an image's wish are their containers'."""
    store = VolumeStore(host.data_dir)
    mounts = [(parse_volume(text), each) for each in containers if Mounts in each for text in each[Mounts].volumes]
    used = {name_of(mount, container) for mount, container in mounts if mount.named}
    taken = {volume.name: store.usage(volume.name).bytes for volume in store.all()}
    unused = sum(size for name, size in taken.items() if name not in used)
    yield DiskUse("volumes", len(taken), len(used & taken.keys()), sum(taken.values()), unused)


def name_of(mount: VolumeMount, container: Container) -> str:
    """What a named volume is called on the host: ``APP/NAME``, or ``NAME`` where it has one of its own."""
    volume = pick(container.app.tables["volume"][mount.source], NamedVolume)
    own = volume.name or (mount.source if volume.external else None)
    return own or f"{container.app.name}/{mount.source}"


def source_path(mount: VolumeMount, container: Container, host: Host) -> str:
    """Where a volume or a path of the host is."""
    if not mount.named:
        return host_path(container, mount.source)
    return str(VolumeStore(host.data_dir).path(name_of(mount, container)))
