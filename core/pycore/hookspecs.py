"""Every hook, in the order in which the core calls them, typed and documented.

A plugin is a module or an object under an entry point of the group ``pycore``; it implements any of
these with :data:`hookimpl`. Hooks describe, they never act: they return values and touch nothing. What
they may look at is the spec and :class:`Host`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy

from pycore import places
from pycore.errors import Problem
from pycore.image import Image
from pycore.linux.layered import Change
from pycore.linux.look import Look
from pycore.linux.measure import Usage
from pycore.ops import Operation
from pycore.spec import App, Container, Section

if TYPE_CHECKING:
    from pycore.linux.kernel import Kernel
    from pycore.logs import Log


GROUP = "pycore"
"""The entry-point group, and pluggy's project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@dataclass(frozen=True)
class Driver:
    """A plugin that is chosen by name, with ``driver = "NAME"``, in its area's table of a container or in a named
    table of its area.
    """

    area: str
    """``network`` or ``storage``, or an area of your own."""
    name: str
    doc: str
    default: bool = False
    """Whether it is taken where the spec names none. One driver of an area says so."""
    rootless: bool = False
    """Whether it is taken in its place where pycore has no power over the host's network: for a normal user."""
    of: tuple[str, ...] = ("container",)
    """The kinds of tables in which it may be chosen: ``container`` for ``[container.NAME.network]``, ``network`` for
    ``[network.NAME]``. The hooks of one that no container can choose are called for every container."""


@dataclass(frozen=True)
class Requirement:
    """Something that a plugin needs of the host, and whether it is there."""

    what: str
    """``libseccomp 2.5 or newer``."""
    met: bool
    why: str = ""
    """What does not work without it."""
    mend: str = ""
    """The line that mends it, ready to be pasted: ``apt-get install libseccomp2``."""


@dataclass(frozen=True)
class End:
    """How a container ended, for who decides whether it is started again."""

    status: int | None
    """Negative for a signal; None where nobody can know."""
    ran: float
    """Seconds from its start to its end."""
    restarts: int
    """How often it was started again already, since a person or an apply last started it."""
    delay: float
    """Seconds that its last start was delayed by; 0 where that was no restart. What a growing delay grows from."""
    stopped: bool
    """Whether a person asked for the end."""
    unhealthy: bool = False
    """Whether it was ended because its health check failed."""
    boot: bool = False
    """Whether the host has started anew since, rather than the container having ended by itself."""


@dataclass(frozen=True)
class Found:
    """An image that somebody knows, and what brings its files here where they are not."""

    image: Image
    fetch: Operation | None = None
    """Done before anything else of an apply, with nothing locked: it may take minutes, and tells how far it is
    (:attr:`pycore.ops.Context.tell`). It is not undone: what is here is not fetched again."""


@dataclass(frozen=True)
class DiskUse:
    """What things of one kind take in the data dir."""

    kind: str
    """``images``, ``volumes``."""
    total: int
    """How many there are,"""
    active: int
    """and how many of them containers use."""
    bytes: int
    """On the disk; what several have is counted once."""
    reclaimable: int
    """Bytes that go when all are removed that nobody uses."""


class Service(Protocol):
    """Something that a plugin does beside containers, in the process of the engine: it answers queries, it watches."""

    def changed(self) -> None:
        """Operations of some container have been done or taken back on the host, or an engine has just taken over.

        Called often, by several threads, before the program of a container that starts is executed: where nothing
        concerns the service, it costs next to nothing, and starts nothing. Raises PycoreError with what it cannot do,
        which goes to the supervisor's log and takes nothing back.
        """
        ...

    def close(self) -> None:
        """The engine ends; containers run on, and the next engine's service goes on from what is on the host."""
        ...


class Probe(Protocol):
    """One way to ask a container how it is."""

    def ask(self, inside: Inside, timeout: float) -> str:
        """What it answered, for people. Raises ProbeFailed with what is wrong, after at most ``timeout`` seconds."""
        ...

    def explain(self) -> str:
        """What is asked, for people."""
        ...


class Inside(Protocol):
    """A running container as a probe sees it."""

    @property
    def pid(self) -> int:
        """Its first process, as the host sees it."""
        ...

    @property
    def pidfd(self) -> int:
        """The same process, for setns(2); borrowed."""
        ...

    def execute(self, command: Sequence[str], timeout: float) -> tuple[int | None, bytes]:
        """Run a program in the container, and kill it after ``timeout`` seconds; (exit status or None, the end of its
        output). Raises PycoreError where it cannot be started.
        """
        ...


class Alarm(Protocol):
    """Something of the kernel's that rings when it kills processes of a container for want of memory."""

    events: int
    """What epoll(7) is to wait for on its descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def heard(self) -> bool:
        """Whether it has happened since this was last asked. Never waits."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class AlarmSource(Protocol):
    """Where such an alarm is to be had."""

    def open(self) -> Alarm:
        """Raises OSError where the host has none."""
        ...


@dataclass(frozen=True)
class HealthCheck:
    """What is asked of a container, how often, and what follows. Times in seconds."""

    probe: Probe
    interval: float
    timeout: float
    retries: int
    """Failures in a row that make it unhealthy."""
    start_period: float
    """After the start, for so long, failures do not count; the first success ends it."""
    start_interval: float
    """The interval during the start period."""
    on_unhealthy: Literal["none", "restart", "stop"]


class Snapshot(Protocol):
    """The files of one container, or of one step of a build: layers that nobody writes to, and what is changed over
    them. Nothing of it is on the host before ``prepare`` is done; undone, it is removed.
    """

    def prepare(self) -> Iterable[Operation]:
        """What makes it on the host, of the step LAYER."""
        ...

    def mount(self) -> Iterable[Operation]:
        """What makes it the root of a process, of the enter phase."""
        ...

    def usage(self) -> Usage:
        """What the changes take on the disk. May have to look at each file."""
        ...

    def changes(self) -> list[Change]:
        """What is changed, in the order of paths."""
        ...

    def commit(self, destination: str) -> None:
        """Freeze the changes as a layer of their own, in overlayfs's words, at a path that is free: with the layers
        below it makes what there is now. A program that runs meanwhile may have written half of something; pause it.
        Raises OSError, PycoreError.
        """
        ...

    def view(self) -> AbstractContextManager[str]:
        """The path, as this process has it, of all files as they are now, read-only, with the owners that they have
        inside. Raises OSError, PycoreError.
        """
        ...


@dataclass
class Host:
    """What a hook may look at: this host, through eyes that cannot write."""

    look: Look
    run_dir: Path
    """State that ends with the kernel's own: /run/pycore."""
    data_dir: Path
    """State that lasts: /var/lib/pycore."""
    claims: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """What the containers of this plan have claimed already, by kind: ``claims["address"]["10.88.0.2"] = id``.
    The host does not show it yet, so a hook that picks something free looks here as well, and adds to it."""
    problems: list[Problem] = field(default_factory=list[Problem])
    """Where a hook puts what stands in the way on this host (a volume's source that is missing, a port that is
    taken); the path is relative to the container's table. Any problem stops the apply before its first operation."""
    warnings: list[Problem] | None = None
    """Likewise, for what does not stand in the way and may still not be as somebody wants it: ``plan`` and ``apply``
    say it, the same words for the same place once. None where nobody hears of it: a container is started again."""

    def complain(self, problem: Problem) -> None:
        """Note a problem that may be found again and again: in each phase, or for each container of a network."""
        if problem not in self.problems:
            self.problems.append(problem)

    @property
    def instance(self) -> str:
        """A word that names this pycore on the host, for cgroups, links and nft tables: ``pycore`` for the usual
        run dir, with a short hash of the path for any other, so that two of them never touch each other's things.
        """
        if str(self.run_dir) == places.RUN_DIR:
            return "pycore"
        return f"pycore-{hashlib.sha256(str(self.run_dir).encode()).hexdigest()[:6]}"

    def container_dir(self, container: Container) -> Path:
        """What the container keeps in the data dir: its layer, its log."""
        return self.data_dir / "containers" / container.id

    def runtime_dir(self, container: Container) -> Path:
        """What the container keeps in the run dir, for as long as it exists."""
        return self.run_dir / "containers" / container.id


class Hooks:
    """The hooks. Subclass it if you like a type checker to check your implementations."""

    @hookspec
    def pycore_driver(self) -> Driver | None:
        """Say that this plugin is a driver. Called once, when plugins are loaded."""
        raise NotImplementedError

    @hookspec
    def pycore_sections(self) -> Sequence[type[Section]]:
        """The sections of the file that this plugin owns. Called once, when plugins are loaded."""
        raise NotImplementedError

    @hookspec
    def pycore_commands(self) -> Sequence[Callable[[Any, Any], None]]:
        """Families of verbs of the command line, as :mod:`pycore.cli.parser` has them. Called once, for the first
        command; only here, and in what it leads to, a plugin may use :mod:`pycore.cli` and the engine.
        """
        raise NotImplementedError

    @hookspec
    def pycore_requirements(self, look: Look) -> Iterable[Requirement]:
        """What the plugin needs of the host, for ``pycore doctor``."""
        raise NotImplementedError

    @hookspec
    def pycore_validate(self, app: App) -> Iterable[Problem]:
        """Problems of the spec that no single field shows: an unknown network, the same port twice.

        Pure: nothing of the host is looked at. Paths start at the top of the file.
        """
        raise NotImplementedError

    @hookspec
    def pycore_run(self, source: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
        """Named tables that a spec of ``pycore run`` needs beside its one container (``name``), which has been made
        from the flags: ``{"volume": {"data": {}}}``. Called before the spec is read, only for ``pycore run``.
        """
        raise NotImplementedError

    @hookspec
    def pycore_image(self, container: Container, host: Host) -> Found | None:
        """What the container's ``image`` means: the plugin that knows words of this kind answers, and puts what stands
        in the way into ``host.problems``. Nothing is written: a registry, an archive, may be read for it.
        """
        raise NotImplementedError

    @hookspec
    def pycore_snapshot(self, container: Container, host: Host) -> Snapshot | None:
        """The container's files: a hook for drivers of the area ``storage``. What is wrong with its image goes into
        ``host.problems``.
        """
        raise NotImplementedError

    @hookspec
    def pycore_prepare(self, container: Container, host: Host) -> Iterable[Operation]:
        """Operations on the host before there is a process; undone when the container is removed."""
        raise NotImplementedError

    @hookspec
    def pycore_launch(self, container: Container, host: Host) -> Iterable[Operation]:
        """How the process is cloned: :class:`pycore.launch.Namespaces` values, merged by the core."""
        raise NotImplementedError

    @hookspec
    def pycore_attach(self, container: Container, host: Host) -> Iterable[Operation]:
        """Operations on the host while the process waits; undone when it has ended."""
        raise NotImplementedError

    @hookspec
    def pycore_enter(self, container: Container, host: Host) -> Iterable[Operation]:
        """Operations inside the new namespaces, with all powers."""
        raise NotImplementedError

    @hookspec
    def pycore_confine(self, container: Container, host: Host) -> Iterable[Operation]:
        """Operations that give powers up, last before the program."""
        raise NotImplementedError

    @hookspec
    def pycore_applied(self, app: App, host: Host) -> None:
        """An app has been applied, with these images: a place to write down which. The app itself goes on running."""
        raise NotImplementedError

    @hookspec
    def pycore_pause(self, container: Container, host: Host) -> Iterable[Operation]:
        """Operations that hold a running container still; undone when it goes on."""
        raise NotImplementedError

    @hookspec
    def pycore_log(self, container: Container, host: Host) -> Log | None:
        """What becomes of the container's output: a hook for drivers of the area ``logging``."""
        raise NotImplementedError

    @hookspec
    def pycore_health(self, container: Container, host: Host) -> HealthCheck | None:
        """How to tell that a container is well. The first plugin that has an answer decides."""
        raise NotImplementedError

    @hookspec
    def pycore_restart(self, container: Container, end: End) -> float | None:
        """Seconds until a container that has ended is started again; None leaves it. The first answer decides."""
        raise NotImplementedError

    @hookspec
    def pycore_ended(self, container: Container, host: Host, status: int | None) -> str | None:
        """Why a container ended, in words, as far as the plugin knows: ``memory limit 64M reached``.

        Called before anything of it is undone. ``status`` is negative for a signal.
        """
        raise NotImplementedError

    @hookspec
    def pycore_oom(self, container: Container, host: Host) -> AlarmSource | None:
        """What says, while the container runs, that the kernel kills processes of it for want of memory. The first
        answer decides.
        """
        raise NotImplementedError

    @hookspec
    def pycore_stats(self, container: Container, host: Host, pid: int) -> Mapping[str, float]:
        """What a running container uses, ``pid`` being its first process: plain numbers under words of the plugin's
        choice. Seconds and bytes, counters since the container's start where the word ends with ``_total``.
        """
        raise NotImplementedError

    @hookspec
    def pycore_leftovers(self, host: Host, known: Collection[Operation]) -> Iterable[Operation]:
        """Things of this pycore on the host that no container has: each as the operation that would have made it, to
        be undone by ``pycore doctor --repair``. ``known`` are the operations in the journals of all containers.
        """
        raise NotImplementedError

    @hookspec
    def pycore_inspect(self, container: Container, host: Host) -> dict[str, Any]:
        """What ``ps`` and ``inspect`` show of a container: addresses, ports, paths; plain values under words of the
        plugin's choice.
        """
        raise NotImplementedError

    @hookspec
    def pycore_disk(self, host: Host, containers: Sequence[Container], running: Collection[str]) -> Iterable[DiskUse]:
        """What the plugin keeps in the data dir, for ``pycore df``; ``running`` are the ids of containers that run."""
        raise NotImplementedError

    @hookspec
    def pycore_service(self, host: Host, kernel: Kernel) -> Service | None:
        """What the plugin does beside containers for as long as there is an engine. Called when one begins, before it
        takes over; nothing is started for it but by :meth:`Service.changed`, when something needs it.
        """
        raise NotImplementedError

    @hookspec
    def pycore_idle(self, host: Host) -> None:
        """Nobody has asked the supervisor for anything for a while: a time to remove what is of no use any more.

        It takes as long as it takes, in a thread of its own; containers run on, and commands come meanwhile.
        """
        raise NotImplementedError
