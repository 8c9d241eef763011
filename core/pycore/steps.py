"""A container's life, to be read in a minute: six phases, and the steps inside each, in order.

The order of operations comes from here and from nowhere else: not from the order in which plugins are
installed or registered. What matters for security (when the root changes, when powers are dropped, when
the system-call filter closes) is therefore the core's, never a plugin's.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """When and where operations run, and how long they last."""

    PREPARE = "prepare"
    """On the host, before any process; lasts until the container is removed."""
    LAUNCH = "launch"
    """How the process is cloned; read by the core, never run on its own."""
    ATTACH = "attach"
    """On the host, the process exists and waits; lasts until it has ended."""
    ENTER = "enter"
    """Inside the new namespaces, still with all powers: the view of the system is built."""
    CONFINE = "confine"
    """Inside, last before the program: powers are given up."""
    PAUSE = "pause"
    """On the host, the program runs; lasts until it is unpaused."""


class Step(Enum):
    """The steps of all phases, in the order in which they run."""

    # prepare
    IMAGE = (Phase.PREPARE, "the image, held so that nobody removes it")
    LAYER = (Phase.PREPARE, "the writable layer and the image below it")
    VOLUME = (Phase.PREPARE, "named volumes")
    CGROUP = (Phase.PREPARE, "the cgroup and its limits")
    NETWORK = (Phase.PREPARE, "the network that the container joins, and its address there")
    FILES = (Phase.PREPARE, "files made for it: hosts, resolv.conf")
    # launch
    NAMESPACES = (Phase.LAUNCH, "the namespaces it is cloned into")
    # attach
    IDMAP = (Phase.ATTACH, "user and group id maps; the process goes on only then")
    LINK = (Phase.ATTACH, "network devices, addresses, routes")
    PUBLISH = (Phase.ATTACH, "ports of the host that lead to it")
    # enter
    JOIN = (Phase.ENTER, "into the cgroup, before anything is charged to it")
    ROOT = (Phase.ENTER, "the root file system is mounted, detached; then the core changes root to it")
    KERNEL_FS = (Phase.ENTER, "/proc, /sys, /dev")
    MOUNT = (Phase.ENTER, "volumes, tmpfs and files, in their places")
    CONCEAL = (Phase.ENTER, "paths masked or made read-only")
    IDENTITY = (Phase.ENTER, "host name, system controls")
    # confine
    RLIMIT = (Phase.CONFINE, "resource limits of the process")
    FILTER_EARLY = (Phase.CONFINE, "system-call filter, where loading it needs powers (no_new_privs is off)")
    BOUNDING = (Phase.CONFINE, "the capability bounding set, while it still may be lowered")
    USER = (Phase.CONFINE, "groups, group and user")
    CAPABILITY = (Phase.CONFINE, "the capabilities that are left")
    NO_NEW_PRIVS = (Phase.CONFINE, "no program gives more powers from here on")
    FILTER = (Phase.CONFINE, "system-call filter: nothing but exec comes after it")
    # pause
    FREEZE = (Phase.PAUSE, "none of its processes is given processor time")

    def __init__(self, phase: Phase, doc: str) -> None:
        self.phase = phase
        self.doc = doc
        self.order: int = len(type(self).__members__)
