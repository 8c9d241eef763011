"""Limits for all of a container's processes together: memory, processor time, number of tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar
from weakref import WeakKeyDictionary

import pydantic
from pycore.errors import Problem, PycoreError
from pycore.hookspecs import Host, Requirement, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Change, Container, Section, Size, parse_size, setting

from pycore_isolation import usage
from pycore_isolation.oom import MemoryAlarm
from pycore_isolation.ops.cgroups import Cgroup, CgroupNamespace, JoinCgroup, Limit
from pycore_isolation.ops.freeze import Freeze, FreezeApart

CONTROLLERS = ("cpu", "memory", "pids")
"""Those that limits can be set on, live, so every container is in all three. The other v1 hierarchies would each
cost a move at every start: devices says nothing where every mount is nodev, freezer nothing where a kill suffices."""

PERIOD = 100_000
"""Microseconds over which processor time is shared out; the kernel's default."""


class Resources(Section):
    """What a container may use at most."""

    table = "container.*.resources"

    memory: Size | None = setting(
        None,
        doc="Memory for all its processes, file cache included; beyond it they are killed.",
        change=Change.LIVE,
        example="256M",
        flags=("-m", "--memory"),
    )
    swap: Size | None = setting(
        None,
        doc="Swap beside it; by default as much as `memory` again. With cgroup v1 only together with `memory`.",
        change=Change.LIVE,
        example="0",
    )
    cpus: Annotated[float, pydantic.Field(ge=0.01, le=8192)] | None = setting(
        None,
        doc="Processors' worth of time, such as 0.5.",
        change=Change.LIVE,
        example=0.5,
        flags=("--cpus",),
    )
    cpu_shares: Annotated[int, pydantic.Field(ge=2, le=262144)] | None = setting(
        None,
        doc="Share of processor time where it is short, beside others' 1024.",
        change=Change.LIVE,
        example=512,
        flags=("-c", "--cpu-shares"),
    )
    pids: Annotated[int, pydantic.Field(ge=0, le=4194304)] = setting(
        4096,
        doc="Processes and threads; 0 is no limit. The default is enough for any server, and too few for a fork bomb "
        "to take all of the 32768 that a host usually has.",
        change=Change.LIVE,
        example=100,
        flags=("--pids-limit",),
    )

    @property
    def pids_max(self) -> str:
        """``pids`` in the kernel's words."""
        return str(self.pids) if self.pids else "max"


@dataclass(frozen=True)
class Unified:
    """cgroup v2: one hierarchy."""

    members: ClassVar[str] = "cgroup.procs"
    root: str
    counts_swap: bool = True
    """Whether swap can be limited; a matter of the kernel's configuration."""

    def directories(self, parent: str, name: str) -> dict[str, str]:
        """Each controller's directory of a container: one for all."""
        return dict.fromkeys(CONTROLLERS, f"{self.root}/{parent}/{name}")

    def cgroups(self, parent: str, name: str) -> Iterator[Cgroup]:
        """The one directory, with every controller turned on."""
        yield Cgroup(self.root, parent, name, CONTROLLERS)

    def limits(self, parent: str, name: str, wanted: Resources) -> Iterator[Limit]:
        """The limits by Documentation/admin-guide/cgroup-v2.rst."""
        path = f"{self.root}/{parent}/{name}"
        if wanted.cpus is not None:
            yield Limit(path, (("cpu.max", f"{quota(wanted.cpus)} {PERIOD}", "max"),))
        if wanted.cpu_shares is not None:
            weight = min(max(round(wanted.cpu_shares * 100 / 1024), 1), 10000)
            yield Limit(path, (("cpu.weight", str(weight), "100"),))
        if wanted.memory is not None:
            yield Limit(path, (("memory.max", str(parse_size(wanted.memory)), "max"),))
        if self.counts_swap and (swap := wanted.swap or wanted.memory) is not None:
            yield Limit(path, (("memory.swap.max", str(parse_size(swap)), "max"),))
        yield Limit(path, (("pids.max", wanted.pids_max, "max"),))


@dataclass(frozen=True)
class Legacy:
    """cgroup v1: a hierarchy for each controller, mounted wherever it may be."""

    members: ClassVar[str] = "tasks"
    roots: tuple[tuple[str, str], ...]
    """(controller, mount point), for each of :data:`CONTROLLERS` that there is."""
    counts_swap: bool
    """Whether memory and swap together can be limited."""

    def directories(self, parent: str, name: str) -> dict[str, str]:
        """Each controller's directory of a container."""
        return {controller: f"{root}/{parent}/{name}" for controller, root in self.roots}

    def cgroups(self, parent: str, name: str) -> Iterator[Cgroup]:
        """A directory in each hierarchy; several controllers can be in one."""
        for root in dict.fromkeys(root for _, root in self.roots):
            yield Cgroup(root, parent, name)

    def limits(self, parent: str, name: str, wanted: Resources) -> Iterator[Limit]:
        """The limits by Documentation/admin-guide/cgroup-v1."""
        paths = self.directories(parent, name)
        if "cpu" in paths and wanted.cpus is not None:
            period = ("cpu.cfs_period_us", str(PERIOD), str(PERIOD))
            yield Limit(paths["cpu"], (period, ("cpu.cfs_quota_us", str(quota(wanted.cpus)), "-1")))
        if "cpu" in paths and wanted.cpu_shares is not None:
            yield Limit(paths["cpu"], (("cpu.shares", str(wanted.cpu_shares), "1024"),))
        if "memory" in paths and wanted.memory is not None:
            yield Limit(paths["memory"], self._memory(wanted.memory, wanted.swap or wanted.memory))
        if "pids" in paths:
            yield Limit(paths["pids"], (("pids.max", wanted.pids_max, "max"),))

    def _memory(self, memory: str, swap: str) -> tuple[tuple[str, str, str], ...]:
        """One operation for both, because the kernel refuses a sum that is below the memory alone."""
        size = parse_size(memory)
        alone = ("memory.limit_in_bytes", str(size), "-1")
        both = ("memory.memsw.limit_in_bytes", str(size + parse_size(swap)), "-1")
        return (alone, both) if self.counts_swap else (alone,)


def quota(cpus: float) -> int:
    """Microseconds of processor time in each :data:`PERIOD`."""
    return round(cpus * PERIOD)


_found: WeakKeyDictionary[Look, Unified | Legacy] = WeakKeyDictionary()


def hierarchy(look: Look) -> Unified | Legacy | None:
    """The cgroups of this host in which limits can be set, or None: a container's inside, say, or no root.

    What was found is kept, for looking through all mounts takes long and every container asks; only what is
    missing is looked for again, because the user may have mended it.
    """
    found = _found.get(look)
    if found is None and (found := _look_for(look)) and not _missing(found):
        _found[look] = found
    return found


def _look_for(look: Look) -> Unified | Legacy | None:
    """A hybrid host has its controllers in v1 hierarchies, and a v2 one without them."""
    mounts = [(point, fstype) for point, fstype in look.mounts() if fstype in ("cgroup", "cgroup2")]
    for point, fstype in mounts:
        if fstype == "cgroup2" and look.is_writable(point) and _can_turn_on(look, point):
            return Unified(point, look.exists("/proc/swaps"))
    roots: dict[str, str] = {}
    for point, fstype in mounts:
        here = point.rpartition("/")[2].split(",") if fstype == "cgroup" else []
        roots |= {name: point for name in CONTROLLERS if name in here and look.is_writable(point)}
    if not roots:
        return None
    swap_file = f"{roots.get('memory', '')}/memory.memsw.limit_in_bytes"
    return Legacy(tuple(sorted(roots.items())), look.exists(swap_file))


def _can_turn_on(look: Look, point: str) -> bool:
    """Whether cgroups below this one may have the controllers.

    A cgroup that holds processes cannot hand them on, the host's own root excepted (cgroups(7), "no internal
    processes"); what is mounted in a container is no such root, which shows in that it has a type.
    """
    here, on, processes = (
        _words(look, f"{point}/cgroup.{name}") for name in ("controllers", "subtree_control", "procs")
    )
    wanted = set(CONTROLLERS)
    return wanted <= here and (wanted <= on or not processes or not look.exists(f"{point}/cgroup.type"))


def _words(look: Look, path: str) -> set[str]:
    try:
        return set(look.read(path).split())
    except OSError:
        return set()


def _missing(found: Unified | Legacy | None) -> list[str]:
    """The controllers that no limit can be set with."""
    if isinstance(found, Unified):
        return []
    present = dict(found.roots) if found else {}
    return [name for name in CONTROLLERS if name not in present]


_CONTROLLER_OF: Mapping[str, str] = {
    "memory": "memory", "swap": "memory", "cpus": "cpu", "cpu_shares": "cpu", "pids": "pids",
}  # fmt: skip


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """What a container may use."""
    return [Resources]


@hookimpl
def pycore_requirements(look: Look) -> Iterator[Requirement]:
    """Cgroups that can be written, with each controller that there are limits for."""
    missing = _missing(hierarchy(look))
    yield Requirement(
        f"writable cgroups with the controllers {', '.join(CONTROLLERS)}",
        met=not missing,
        why=f"limits that need {', '.join(missing)} are refused, and containers without any run unlimited",
        mend="mount -o remount,rw /sys/fs/cgroup  # as root; a container that pycore is in needs cgroups of its own",
    )


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterator[Operation]:
    """Make the cgroups and set the limits; a limit that was asked for and cannot be set is a problem."""
    found, wanted = hierarchy(host.look), container[Resources]
    missing = _missing(found)
    for name in sorted(wanted.model_fields_set):
        if getattr(wanted, name) is not None and _CONTROLLER_OF[name] in missing:
            host.problems.append(
                Problem(
                    ("resources", name),
                    f"this host has no writable cgroup with the {_CONTROLLER_OF[name]} controller to set it in",
                    hint="`pycore doctor` says how to mend it",
                )
            )
    if found:
        yield from found.cgroups(host.instance, container.id)
        yield from found.limits(host.instance, container.id, wanted)


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """Join them, and see nothing above them."""
    if found := hierarchy(host.look):
        yield JoinCgroup(tuple(f"{path}/{found.members}" for path in _paths(found, container, host)))
    yield CgroupNamespace()


@hookimpl
def pycore_pause(container: Container, host: Host) -> Iterator[Operation]:
    """Freeze all its processes. Raises PycoreError where this host cannot."""
    found = hierarchy(host.look)
    if isinstance(found, Unified):
        yield Freeze(f"{found.root}/{host.instance}/{container.id}")
        return
    freezer = _freezer(host.look)
    if found is None or freezer is None:
        raise PycoreError(
            f"{container.full_name} cannot be paused: this host has no writable cgroup to freeze it in",
            hint="`pycore doctor` says how to mend it",
        )
    root, unified = freezer
    members = f"{next(iter(found.directories(host.instance, container.id).values()))}/cgroup.procs"
    back = f"{root}{_own_cgroup(host.look, '' if unified else 'freezer')}".rstrip("/")
    yield FreezeApart(root, host.instance, container.id, members, back, unified)


def _freezer(look: Look) -> tuple[str, bool] | None:
    """Where a v1 or hybrid host can freeze processes, and whether it is a v2 hierarchy."""
    mounts = [(point, fstype) for point, fstype in look.mounts() if look.is_writable(point)]
    for point, fstype in mounts:
        if fstype == "cgroup" and "freezer" in point.rpartition("/")[2].split(","):
            return point, False
    return next(((point, True) for point, fstype in mounts if fstype == "cgroup2"), None)


def _own_cgroup(look: Look, controller: str) -> str:
    """The cgroup that this process is in, and so was every container's first; v2's where no controller is named."""
    try:
        lines = look.read("/proc/self/cgroup").splitlines()
    except OSError:
        return ""
    rows = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return next((path for _, names, path in rows if controller in names.split(",")), "")


@hookimpl
def pycore_stats(container: Container, host: Host) -> Mapping[str, float]:
    """Processor time, memory, processes, and blocks moved where the host counts them for us."""
    files = _files(container, host)
    return usage.usage(host.look, files) if files else {}


@hookimpl
def pycore_ended(container: Container, host: Host, status: int | None) -> str | None:
    """Whether it ran into one of its limits, where it did not end well."""
    files = _files(container, host)
    if files is None:
        return None
    news, wanted = usage.news(host.look, files), container[Resources]
    if news.killed and status in _KILLED:
        return f"memory limit {wanted.memory} reached" if wanted.memory else "the host ran out of memory"
    if news.forks and status != 0 and wanted.pids:
        return f"the limit of {wanted.pids} processes was reached"
    return None


@hookimpl
def pycore_oom(container: Container, host: Host) -> MemoryAlarm | None:
    """The alarm of its memory cgroup."""
    files = _files(container, host)
    directory = files.directories.get("memory") if files else None
    return MemoryAlarm(directory, files.unified) if files and directory else None


_KILLED = (-9, 137, None)
"""By SIGKILL, itself or as a shell says it of its child, or nobody knows how."""


def _files(container: Container, host: Host) -> usage.Files | None:
    found = hierarchy(host.look)
    if found is None:
        return None
    return usage.Files(found.directories(host.instance, container.id), isinstance(found, Unified))


@hookimpl
def pycore_leftovers(host: Host, known: Collection[Operation]) -> Iterator[Operation]:
    """Cgroups of this pycore that belong to no container."""
    found, mine = hierarchy(host.look), {operation.path for operation in known if isinstance(operation, _MADE)}
    for root in _roots(found):
        for name in _below(host.look, f"{root}/{host.instance}"):
            if f"{root}/{host.instance}/{name}" not in mine:
                yield Cgroup(root, host.instance, name)
    if isinstance(found, Legacy) and (freezer := _freezer(host.look)):
        root, unified = freezer
        for name in _below(host.look, f"{root}/{host.instance}"):
            lost = FreezeApart(root, host.instance, name, f"{root}/{host.instance}/{name}/cgroup.procs", root, unified)
            if lost.path not in mine:
                yield lost


_MADE = (Cgroup, FreezeApart)


def _roots(found: Unified | Legacy | None) -> Iterable[str]:
    if isinstance(found, Unified):
        return (found.root,)
    return dict.fromkeys(root for _, root in found.roots) if found else ()


def _below(look: Look, path: str) -> Iterator[str]:
    return (name for name in look.listdir(path) if look.is_dir(f"{path}/{name}"))


@hookimpl
def pycore_inspect(container: Container, host: Host) -> dict[str, object]:
    """Where the cgroups are."""
    found = hierarchy(host.look)
    return {"cgroups": _paths(found, container, host) if found else []}


def _paths(found: Unified | Legacy, container: Container, host: Host) -> list[str]:
    return [cgroup.path for cgroup in found.cgroups(host.instance, container.id)]
