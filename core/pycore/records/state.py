"""What is running (run dir) and what was applied (data dir), each a small JSON file put in place whole.

    RUN_DIR/lock                     held by the one engine that may change things; its process id
    RUN_DIR/boot                     the boot of the host in which all this is true
    RUN_DIR/containers/ID/state.jsonl the record of a container: the journal of its operations
    RUN_DIR/containers/ID/exit.json  how it ended, written by the spawner
    DATA_DIR/apps/APP.json           what was applied

The run dir goes with the kernel's own state at a reboot, so it is not fsynced; the data dir is. A container's
record is written many times in its life, and putting a file in place whole costs a millisecond where the run
dir is on a disk (ext4 allocates at once what is renamed over another): so each write appends one line with
what has changed, and whoever reads lays the lines over each other. A line that is not whole was never written.
Who holds the lock has all records in memory: it alone writes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pycore.errors import Conflict, PycoreError
from pycore.launch.spawner import EXIT_FILE
from pycore.ops import Operation, Record, from_record

Status = Literal["creating", "created", "running", "stopped", "removing"]
"""OCI's states, and ``removing``: found after a crash, it says that the rest is to be undone."""

Part = Literal["prepared", "attached", "paused", "going", "coming"]
"""A part of a container's journal."""

VERSION = 1
STATE_FILE = "state.jsonl"


@dataclass(frozen=True)
class ContainerRecord:
    """What is known of one container; also the journal of what was done to the host for it."""

    id: str
    app: str
    name: str
    source: Mapping[str, Any]
    """The app's source with this container alone: its table and the app's named tables."""
    directory: str
    image: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it is made of: a :class:`pycore.image.Image` as plain values."""
    service: str = ""
    """The name of its table in the file: its own name, or the one that its replicas share."""
    status: Status = "creating"
    pid: int = 0
    """Its first process; with the status ``created``, one that waits to be started, or 0."""
    pid_started: int = 0
    """When that process began, in ticks since the boot (proc_pid_stat(5), field 22): tells it from a later one."""
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    exit_status: int | None = None
    """As Python says it: negative for a signal's number. None while it runs, or when nobody can know."""
    reason: str = ""
    """Why it ended, in words, where its status does not say it all."""
    wanted: Literal["running", "stopped"] = "running"
    """What a person, or an apply, last asked for; the restart policy works towards it."""
    restarts: int = 0
    """How often it was started again by its policy since then."""
    restart_at: float = 0.0
    """When its policy starts it again, in seconds since 1970; 0 where it does not."""
    delay: float = 0.0
    """Seconds that its last start was delayed by, where that was a restart."""
    health: str = ""
    """``starting``, ``healthy``, ``unhealthy``; empty where nobody asks."""
    paused: tuple[Record, ...] = ()
    """Operations of the pause phase: undone when it goes on. Empty where it is not paused."""
    network_of: str = ""
    """``APP/NAME`` of the container whose network namespace it was started in; empty where it was its own."""
    log: bool = True
    """Whether its output is kept; False where it went to a client's own descriptors."""
    auto_remove: bool = False
    prepared: tuple[Record, ...] = ()
    """Operations of the prepare phase: undone on removal."""
    attached: tuple[Record, ...] = ()
    """Operations of the attach phase: undone when the process has ended."""
    going: tuple[Record, ...] = ()
    """While a change of a container is carried out: the operations that it takes back, and"""
    coming: tuple[Record, ...] = ()
    """those that it does. They are in the journal as well, whichever of them is in force."""
    version: int = VERSION

    @property
    def full_name(self) -> str:
        """``APP/NAME``."""
        return f"{self.app}/{self.name}"

    def operations(self, which: Part) -> list[Operation]:
        """The journal's operations as values. Raises PycoreError where their plugin is not installed any more, or is of
        a version that has no such operations.
        """
        operations, problems = self._read(which)
        if problems:
            raise PycoreError(f"{self.full_name}: {problems[0].message}", hint=problems[0].hint)
        return operations

    def readable(self, *which: Part) -> tuple[list[Operation], list[str]]:
        """The operations that can be taken back, and in words those that cannot, since their plugin is gone.

        What another version of a plugin that is here has done, in words that this one has not, is neither: it is named
        after the run dir, and the plugin finds by itself what is left of it (``pycore_leftovers``).
        """
        operations: list[Operation] = []
        gone: list[str] = []
        for part in which:
            found, problems = self._read(part)
            operations += found
            gone += [f"{each.message}; {each.hint}" for each in problems if isinstance(each, PluginGone)]
        return operations, gone

    def _read(self, which: Part) -> tuple[list[Operation], list[PycoreError]]:
        found: list[Operation] = []
        problems: list[PycoreError] = []
        records: tuple[Record, ...] = getattr(self, which)
        for record in records:
            try:
                found.append(from_record(record))
            except (ImportError, AttributeError, TypeError) as error:
                problems.append(self._unreadable(record, error))
        return found, problems

    def _unreadable(self, record: Record, error: Exception) -> PycoreError:
        words = f"cannot read its journal: {error}"
        package = str(record["op"]).partition(":")[0].partition(".")[0]
        if find_spec(package) is None:
            return PluginGone(words, hint="install the plugin again that made it")
        hint = f"another version of {package} made it: pycore rm -f {self.full_name}, then repeat the command"
        return PycoreError(words, hint=hint)


@dataclass(frozen=True)
class AppRecord:
    """What was applied."""

    name: str
    source: Mapping[str, Any]
    directory: str
    file: str = ""
    generations: Mapping[str, int] = field(default_factory=dict[str, int])
    """Container name to how often it was made: it goes into the id."""
    ids: Mapping[str, str] = field(default_factory=dict[str, str])
    """Container name to its id, which stays when the container is renamed: its layer is found by it."""
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Container name to what it is made of, as its record has it: so that the same comes back after a boot."""
    stopped: Sequence[str] = ()
    """Containers that a person stopped: they stay so when the host starts anew."""
    version: int = VERSION


class State:
    """The two directories. Reading needs nothing; writing needs :meth:`lock`."""

    def __init__(self, run_dir: Path, data_dir: Path) -> None:
        self.run_dir = run_dir
        self.data_dir = data_dir
        self._lock = -1
        self._records: dict[str, ContainerRecord] = {}
        """All records, while the lock is ours: nobody else writes them."""
        self._ends: dict[str, tuple[int | None, float]] = {}
        """Exit statuses and times of processes that have ended, and whose records are not written yet."""
        self._whole: set[str] = set()
        """Those that this process wrote as a whole, so that a line with what has changed can follow."""
        self.rebooted = False
        """Whether the host has started anew since the run dir was last locked: known once the lock is ours."""

    # -- the lock ----------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Make the directories and become the one that may change things. Raises Conflict, PycoreError."""
        for directory, mode in ((self.run_dir, 0o711), (self.data_dir, 0o711)):
            try:
                directory.mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise PycoreError(
                    f"cannot make {directory}: {error.strerror}",
                    hint="run as root, or choose directories of your own with --run-dir and --data-dir",
                ) from error
        try:
            for directory in (self.run_dir / "containers", self.data_dir / "apps", self.data_dir / "containers"):
                directory.mkdir(mode=0o711, exist_ok=True)
            self._lock = os.open(self.run_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(self._lock, f"{os.getpid():<10}\n".encode(), 0)
            self.rebooted = self._note_boot()
        except BlockingIOError:
            self.unlock()
            raise Conflict(
                f"another pycore looks after {self.run_dir}", hint="use the pycore command, or another --run-dir"
            ) from None
        except OSError as error:
            self.unlock()
            raise PycoreError(
                f"cannot write in {error.filename}: {error.strerror}",
                hint="run as root, or choose directories of your own with --run-dir and --data-dir",
            ) from error

        self._records = {record.id: record for record in self._read_all()}

    def unlock(self) -> None:
        """Let another engine in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            self._records.clear()
            self._whole.clear()

    def _note_boot(self) -> bool:
        """Whether this is another boot than the one that the run dir was last used in (random(4), boot_id)."""
        place = self.run_dir / "boot"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        try:
            if place.read_text(encoding="ascii") == boot:
                return False
        except (OSError, UnicodeDecodeError):
            pass
        place.write_text(boot, encoding="ascii")
        return True

    # -- containers --------------------------------------------------------------------------------------

    def container_dir(self, identity: str) -> Path:
        return self.run_dir / "containers" / identity

    def write(self, record: ContainerRecord) -> ContainerRecord:
        """Put a record in place; returns it, so that a change and its writing are one line."""
        before = self._records.get(record.id)
        if before is None or record.id not in self._whole:
            directory = self.container_dir(record.id)
            directory.mkdir(mode=0o711, exist_ok=True)
            _put(directory / STATE_FILE, vars(record), durable=False)
            self._whole.add(record.id)
        else:
            changed = {key: value for key, value in vars(record).items() if value != getattr(before, key)}
            _append(f"{self.run_dir}/containers/{record.id}/{STATE_FILE}", changed)
        self._records[record.id] = record
        return record

    def forget(self, identity: str) -> None:
        """Remove all that the run dir keeps of a container."""
        self._records.pop(identity, None)
        self._ends.pop(identity, None)
        self._whole.discard(identity)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.container_dir(identity))

    def containers(self) -> list[ContainerRecord]:
        """All records, by app and name; a container that has ended meanwhile is shown as ended."""
        found = [self._as_ended(each) for each in self._records.values()] if self._lock >= 0 else self._read_all()
        return sorted(found, key=lambda record: (record.app, record.name, record.created))

    def _read_all(self) -> list[ContainerRecord]:
        """All that can be read; what is wrong with the others is told by :meth:`damaged`."""
        found: list[ContainerRecord] = []
        for directory in _entries(self.run_dir / "containers"):
            with contextlib.suppress(Damaged):
                record = self._read_one(directory.name)
                found += [record] if record else []
        return found

    def damaged(self) -> list[tuple[Path, str]]:
        """Files of records that cannot be read, and why. Nothing else fails because of them."""
        found: list[tuple[Path, str]] = []
        for directory in sorted(_entries(self.run_dir / "containers")):
            try:
                self._read_one(directory.name)
            except Damaged as error:
                found.append((directory / STATE_FILE, error.message))
        for path in sorted(_entries(self.data_dir / "apps")):
            try:
                self.app(path.stem) if path.suffix == ".json" else None
            except Damaged as error:
                found.append((path, error.message))
        return found

    def container(self, identity: str) -> ContainerRecord | None:
        """One record, or None where there is none."""
        if self._lock < 0:
            return self._read_one(identity)
        record = self._records.get(identity)
        return self._as_ended(record) if record else None

    def _read_one(self, identity: str) -> ContainerRecord | None:
        fields = _get(self.container_dir(identity) / STATE_FILE)
        if fields is None:
            return None
        try:
            record = _container(fields)
        except (KeyError, TypeError) as error:
            raise _damaged(self.container_dir(identity) / STATE_FILE, error) from error
        return self._settle(record)

    def note_end(self, identity: str, status: int | None, time: float) -> None:
        """A process has ended: whoever asks sees it from now on, until the record is written that says so."""
        self._ends[identity] = (status, time)

    def _as_ended(self, record: ContainerRecord) -> ContainerRecord:
        end = self._ends.get(record.id) if record.pid else None
        return replace(record, status="stopped", exit_status=end[0], finished=end[1]) if end else record

    def _settle(self, record: ContainerRecord) -> ContainerRecord:
        """The record with the exit status that the spawner wrote down, if there is one."""
        if not record.pid:
            return record
        ended = _read(self.container_dir(record.id) / EXIT_FILE)
        if ended is None:
            return record
        return replace(record, status="stopped", exit_status=ended["status"], finished=ended["time"])

    def clear_exit(self, identity: str) -> None:
        """Forget an earlier end, before the container starts again."""
        self._ends.pop(identity, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.container_dir(identity) / EXIT_FILE)

    # -- apps --------------------------------------------------------------------------------------------

    def write_app(self, record: AppRecord) -> None:
        _put(self.data_dir / "apps" / f"{record.name}.json", vars(record), durable=True)

    def forget_app(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.data_dir / "apps" / f"{name}.json")

    def app(self, name: str) -> AppRecord | None:
        path = self.data_dir / "apps" / f"{name}.json"
        fields = _get(path)
        try:
            return None if fields is None else AppRecord(**fields)
        except TypeError as error:
            raise _damaged(path, error) from error

    def apps(self) -> list[AppRecord]:
        """All that was applied, by name."""
        names = [path.stem for path in _entries(self.data_dir / "apps") if path.suffix == ".json"]
        found: list[AppRecord] = []
        for name in sorted(names):
            with contextlib.suppress(Damaged):
                record = self.app(name)
                found += [record] if record else []
        return found


class Damaged(PycoreError):
    """A record that cannot be read."""


class PluginGone(PycoreError):
    """A plugin that is not installed any more."""


def _container(fields: dict[str, Any]) -> ContainerRecord:
    for key in ("prepared", "attached", "paused", "going", "coming"):
        fields[key] = tuple(fields.get(key, ()))
    return ContainerRecord(**fields)


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise PycoreError(f"cannot read {directory}: {error.strerror}", hint="run as root") from error


def _get(path: Path) -> dict[str, Any] | None:
    """A record of this version, or None where there is no file."""
    fields = _read(path)
    if fields is not None and fields.get("version") != VERSION:
        raise PycoreError(f"{path} was written by another version of pycore ({fields.get('version')!r})")
    return fields


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            fields: dict[str, Any] = json.loads(file.readline())
            for line in file:
                fields |= json.loads(line) if line.endswith("\n") else {}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PycoreError(f"cannot read {path}: {error.strerror}", hint="run as root") from error
    except (ValueError, TypeError) as error:  # no JSON, or none that is an object
        raise _damaged(path, error) from error
    if not isinstance(fields, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _damaged(path, "it is no record")
    return fields


def _damaged(path: Path, why: object) -> Damaged:
    return Damaged(f"{path} is damaged: {why}", hint="pycore doctor --repair")


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _append(path: str, fields: Mapping[str, Any]) -> None:
    """Add a line to a record; on a full disk what came of it is cut off again, so the next one is whole."""
    data = _line(fields)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        try:
            written = os.write(fd, data)
        except OSError:
            written = 0
        if written < len(data):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def _put(path: Path, fields: Mapping[str, Any], *, durable: bool) -> None:
    """Put a file in the place of another, whole. Raises OSError with its name; the other is there still."""
    temporary = f"{path}.new"
    try:
        _write_out(temporary, _line(fields), durable)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _write_out(temporary: str, data: bytes, durable: bool) -> None:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
