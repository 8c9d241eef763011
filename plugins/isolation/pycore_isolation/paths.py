"""What a container sees of the kernel: fresh /proc, read-only /sys, a minimal /dev, and nothing that tells too much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pycore.hookspecs import Host, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation
from pycore.spec import Container

from pycore_isolation.cgroups import Unified, hierarchy
from pycore_isolation.ops.paths import NODEV, NOEXEC, NOSUID, READ_ONLY, Device, HostTree, Links, Mask, Mount, ReadOnly

INERT = NOSUID | NOEXEC | NODEV

MOUNTS = (
    Mount("proc", "/proc", INERT),
    Mount("sysfs", "/sys", INERT | READ_ONLY),
    Mount("tmpfs", "/dev", INERT, (("mode", "755"), ("size", "64k"))),
    Mount(
        "devpts", "/dev/pts", NOSUID | NOEXEC,
        (("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")),
    ),
    Mount("tmpfs", "/dev/shm", INERT, (("mode", "1777"), ("size", "64m"))),
    Mount("mqueue", "/dev/mqueue", INERT),
)  # fmt: skip
"""What the OCI runtime specification lists for Linux (config-linux.md, Default Filesystems); group 5 is tty."""

_TTY = 5

DEVICES = tuple(Device(f"/dev/{name}") for name in ("null", "zero", "full", "random", "urandom", "tty"))
"""The default devices of the same document, but for console, which comes with a terminal."""

LINKS = Links(
    (
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/core", "/proc/kcore"),
        ("/dev/ptmx", "pts/ptmx"),
    )
)

MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware",  # the host's hardware
    "/sys/devices/virtual/powercap",  # power use, which betrays keys (CVE-2020-8694)
    "/proc/kcore", "/proc/keys",  # memory and keys
    # and what everybody else's programs do
    "/proc/interrupts", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
)  # fmt: skip
"""Not namespaced, so they tell of the whole host: the list of Docker, whose names these are."""

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Not namespaced, or not all of it, and writable by root: Docker's list too."""

_CPUS = "/sys/devices/system/cpu"


def masked(look: Look) -> list[str]:
    """The paths to hide that this kernel has; each processor has one more, its temperature."""
    throttle = [f"{_CPUS}/{name}/thermal_throttle" for name in look.listdir(_CPUS) if name[3:].isdigit()]
    return [path for path in (*MASKED, *throttle) if look.exists(path)]


def _kernel_mounts(container: Container, host: Host) -> Iterator[Operation]:
    """:data:`MOUNTS`, but for what a user namespace cannot have: a /sys of a network that is not its own, and
    terminals of a group that it does not know.
    """
    rootless = host.look.in_user_namespace()
    knows_tty = any(first <= _TTY < first + count for first, count in host.look.id_ranges())
    for mount in MOUNTS:
        if mount.fstype == "sysfs" and rootless and container.drivers.get("network") in ("host", "container"):
            yield HostTree("/sys", mount.attributes)
        elif mount.fstype == "devpts" and not knows_tty:
            yield replace(mount, options=tuple(option for option in mount.options if option[0] != "gid"))
        else:
            yield mount


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterator[Operation]:
    """Mount the kernel's file systems, put in the devices, then hide and lock what is not the container's."""
    yield from _kernel_mounts(container, host)
    if isinstance(hierarchy(host.look), Unified):
        yield Mount("cgroup2", "/sys/fs/cgroup", INERT | READ_ONLY)
    yield from DEVICES
    yield LINKS
    hidden = masked(host.look)
    directories = tuple(path for path in hidden if host.look.is_dir(path))
    yield Mask(tuple(path for path in hidden if path not in directories), directories)
    yield ReadOnly(tuple(path for path in READ_ONLY_PATHS if host.look.exists(path)))
