"""What a pycore holds while no app is there: of memory and descriptors, and on the host for containers that were.

Used by the bench and by a test: nothing of the bench is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pycore.hookspecs import Host
from pycore.linux import nftables
from pycore.linux.look import Look
from pycore.plan import identity
from pycore_network.networks import bridge_of

_KEPT = ("events", "volumes", "cache", "lock", "boot", "starting", "supervisor.log")
"""What of the run dir and the data dir stays on purpose, and may grow up to bounds of its own."""


@dataclass(frozen=True)
class Holdings:
    """Numbers, of the supervisor and its spawners together."""

    memory: int
    """Bytes (PSS)."""
    descriptors: int
    mounts: int
    cgroups: int
    links: int
    elements: int
    """Of sets and maps of nftables."""
    files: int

    def grown(self, before: Holdings, memory: int) -> dict[str, int]:
        """What there is more of than before: of memory more than so many bytes, of all else anything."""
        allowed = {"memory": memory}
        more = {name: number - getattr(before, name) for name, number in asdict(self).items()}
        return {name: number for name, number in more.items() if number > allowed.get(name, 0)}


def residents(run_dir: Path) -> list[int]:
    """The supervisor and the spawners of a run dir, by process id."""
    spawners = [int(path.stem) for path in (run_dir / "spawners").glob("*.sock")]
    return [int((run_dir / "lock").read_text()), *(pid for pid in spawners if Path(f"/proc/{pid}").exists())]


def pss(pid: int) -> int:
    """Bytes that a process holds: a page that several share is divided among them (proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def held(run_dir: Path, data_dir: Path, app: str, containers: Collection[str]) -> Holdings:
    """What is held now. ``containers`` are the names that the app's had."""
    pids = residents(run_dir)
    host = Host(Look(), run_dir, data_dir)
    return Holdings(
        memory=sum(map(pss, pids)),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        mounts=sum(point.startswith((f"{run_dir}/", f"{data_dir}/")) for point, _ in host.look.mounts()),
        cgroups=sum(1 for _ in _cgroups(host.instance)),
        links=sum(1 for _ in _links(host, app, containers)),
        elements=_elements(f"inet {host.instance}"),
        files=sum(1 for directory in (run_dir, data_dir) for _ in _files(directory)),
    )


def _cgroups(instance: str) -> Iterator[str]:
    top = Path("/sys/fs/cgroup")
    for root in (top / instance, *top.glob(f"*/{instance}")):
        yield from (path for path, _, _ in os.walk(root))


def _links(host: Host, app: str, containers: Collection[str]) -> Iterator[str]:
    ids = {identity(host.instance, f"{app}/{name}", number) for name in containers for number in range(1, 9)}
    bridge = bridge_of(host, f"{app}_default")
    for link in host.look.links():
        if link == bridge or link[2:] in ids or host.look.link_master(link) == bridge:
            yield link


def _elements(table: str) -> int:
    if not nftables.has_table(table):
        return 0
    lists = nftables.listing(f"table {table}").split("elements = {")[1:]
    return sum(len(each.partition("}")[0].split(",")) for each in lists)


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.name not in _KEPT:
            yield from (path, *path.rglob("*"))
