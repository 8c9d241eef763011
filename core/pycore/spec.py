"""What the user wants: an App of Containers, each made of Sections whose fields say what a change costs.

The core knows no field of a plugin. A plugin declares a :class:`Section`: a pydantic model with a place
in the file (``table``) and, for each field, a type, a default, a sentence, and a change class. From that
one declaration come validation, the JSON Schema, the reference page, the hypothesis strategies, and what
``plan`` does when the field changes.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast

import pydantic

from pycore.image import Image, ImageConfig

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
"""Names of apps, containers, networks and volumes: safe as a file name and as a host name's start."""

Name = Annotated[str, pydantic.StringConstraints(pattern=f"^{NAME_PATTERN}$")]


class Change(IntEnum):
    """What it takes to bring a changed field into force, from the mildest to the hardest."""

    NOTHING = 0
    """Nothing on the host depends on it."""
    LIVE = 1
    """The host-side operations that differ are undone and done; the process runs on."""
    RESTART = 2
    """The process is stopped and started; writable layer and address stay."""
    RECREATE = 3
    """The container is replaced by a new one."""


def setting(
    default: Any = ...,
    *,
    doc: str,
    change: Change = Change.RECREATE,
    example: Any = None,
    flags: tuple[str, ...] = (),
    between: str = "=",
    execute: bool = False,
    privileged: Any = None,
) -> Any:
    """Declare a field of a Section.

    ``doc`` is one or two sentences for the reference page. ``flags`` are what ``pycore run`` calls it
    (``("-p", "--publish")``): given several times for an array, as KEY=VALUE for a table, without a value
    for a bool. ``between`` are the signs of which any may stand between key and value, the usual one first; with ``=``
    alone a bare KEY takes its value from the caller's environment. ``execute`` says that ``pycore exec`` takes these
    flags too, for one more program in a container that runs; ``privileged`` is the value that the field has for such a
    program with ``--privileged``.
    """
    return pydantic.Field(
        default,
        description=doc,
        examples=None if example is None else [example],
        json_schema_extra={
            "x-pycore-change": change.name.lower(),
            "x-pycore-flags": list(flags),
            "x-pycore-between": between,
            "x-pycore-execute": execute,
            "x-pycore-privileged": privileged,
        },
        validate_default=False,
    )


class Fields(pydantic.BaseModel):
    """Fields that are declared with :func:`setting`: a section, or a table inside one.

    Flags of fields in tables inside a section, one by name for each of several things, mean the first of these:
    ``run --network back --ip 10.20.0.7``.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def change_of(cls, name: str) -> Change:
        """The change class of a field."""
        return Change[str(cls._extra(name).get("x-pycore-change", "recreate")).upper()]

    @classmethod
    def flags_of(cls, name: str) -> tuple[str, ...]:
        """What ``pycore run`` calls a field; empty where it cannot be given there."""
        return tuple(cls._extra(name).get("x-pycore-flags", ()))

    @classmethod
    def between_of(cls, name: str) -> str:
        """The signs that may stand between key and value where ``pycore run`` is given a field that is a table."""
        return str(cls._extra(name).get("x-pycore-between", "="))

    @classmethod
    def is_for_execute(cls, name: str) -> bool:
        """Whether ``pycore exec`` takes a field's flags too."""
        return bool(cls._extra(name).get("x-pycore-execute"))

    @classmethod
    def privileged_of(cls, name: str) -> Any:
        """The value of a field for ``pycore exec --privileged``; None where that leaves it alone."""
        return cls._extra(name).get("x-pycore-privileged")

    @classmethod
    def _extra(cls, name: str) -> Mapping[str, Any]:
        """What :func:`setting` noted of a field."""
        extra = cls.model_fields[name].json_schema_extra
        return cast(Mapping[str, Any], extra) if isinstance(extra, dict) else {}


class Section(Fields):
    """Fields that one plugin owns in one table of the file.

    ``table`` is the place, with ``*`` for a name: ``container.*.network`` or ``network.*``. Several
    plugins may own different fields of one table; the same field twice is an error at start-up. Fields
    of a driver plugin's section are allowed only where that driver is chosen.
    """

    table: ClassVar[str]
    whole: ClassVar[Change] = Change.RECREATE
    """What it takes for a container that a table beside it concerns (``[network.back]``) when that comes or goes."""

    @classmethod
    def needs(cls, table: Mapping[str, Any]) -> Mapping[str, str]:
        """The containers of the app that a container with such a table depends on, as ``depends_on`` has it.

        ``table`` is as it is written: nobody has checked it yet. Who is not in the app is left out.
        """
        return {}

    @classmethod
    def of_word(cls, word: str) -> Mapping[str, Any] | None:
        """What one word in the place of the whole table stands for, as the table would have it; None if nothing here.

        A driver's name chooses that driver, and is never asked about: ``network = "host"``.
        """
        return None

    def with_image(self, config: ImageConfig) -> Self:
        """The section where an image says what the spec leaves open. Raises ValueError for what cannot be meant."""
        return self

    def into_image(self, config: ImageConfig) -> ImageConfig:
        """What an image says of itself that is made of a container with this section; ``config`` where this says
        nothing. A container of that image is run like this one.
        """
        return config

    def left_open(self, **values: Any) -> Self:
        """The section with these values in those of the fields that the spec does not set, checked like the spec's.

        For :meth:`with_image`. Raises ValueError.
        """
        open_fields = {name: value for name, value in values.items() if name not in self.model_fields_set}
        if not open_fields:
            return self
        return type(self).model_validate({name: getattr(self, name) for name in self.model_fields_set} | open_fields)


def _tuple(value: Any) -> Any:
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


T = TypeVar("T")
Many = Annotated[tuple[T, ...], pydantic.BeforeValidator(_tuple)]
"""A TOML array, kept as a tuple: ``ports: Many[str]``."""


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


Text = Annotated[str, pydantic.AfterValidator(_no_nul)]
"""A string that the kernel can take: no NUL inside."""


def is_path(text: str) -> bool:
    """Whether an image, or a volume's source, is a path of the host: by its first character, as in Compose."""
    return text.startswith(("/", "."))


def looks(word: str, pattern: str) -> pydantic.WithJsonSchema:
    """What the strings of a type look like: for editors, the reference page, and strategies.

    A part of an Annotated type beside its validator, which alone decides. ``pattern`` is a regular expression for
    the whole string, in what Python and ECMA 262 have in common.
    """
    return pydantic.WithJsonSchema({"type": "string", "format": word, "pattern": f"^(?:{pattern})$"})


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path in the container, starting with /")
    if ".." in value.split("/"):
        raise ValueError("must not contain ..")
    return value


InsidePath = Annotated[Text, pydantic.AfterValidator(_absolute), looks("path", r"/[^\u0000]*")]
"""An absolute path inside the container, without ``..``."""

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of ``"64M"``, ``"1.5G"``, ``"4096"``; units are powers of 1024. Raises ValueError."""
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in ("K", "M", "G", "T") else ""
    digits = number.removesuffix(unit) if unit else number
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > 20:
        raise ValueError('must be a size such as "64M" or "1.5G"')
    size = int(float(digits) * _SIZE_UNITS[unit])
    if size > 1 << 62:
        raise ValueError("is larger than any machine")
    return size


def _size(value: str) -> str:
    parse_size(value)
    return value


Size = Annotated[
    Text, pydantic.AfterValidator(_size), looks("size", r"[0-9]{1,18}(\.[0-9]{1,3})?[KMGTkmgt]?([iI]?[bB])?")
]
"""A size with a unit; :func:`parse_size` gives its bytes."""

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of ``"10s"``, ``"500ms"``, ``"1.5m"``, ``"1h"``. Raises ValueError."""
    word = text.strip()
    unit = next((unit for unit in ("ms", "s", "m", "h") if word.endswith(unit)), "")
    digits = word.removesuffix(unit)
    if not unit or not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > 12:
        raise ValueError('must be a time such as "10s", "500ms" or "1h"')
    seconds = float(digits) * _DURATION_UNITS[unit]
    if seconds > 1e9:
        raise ValueError("is longer than thirty years")
    return seconds


def _duration(value: str) -> str:
    parse_duration(value)
    return value


Duration = Annotated[
    Text, pydantic.AfterValidator(_duration), looks("duration", r"[0-9]{1,9}(\.[0-9]{1,2})?(ms|s|m|h)")
]
"""A time with a unit; :func:`parse_duration` gives its seconds."""


def _signal(value: str) -> str:
    signal_number(value)
    return value


_REAL_TIME = r"(?:SIG)?(?:RTMIN\+([1-9]|[12][0-9]|30)|RTMAX-([1-9]|[12][0-9]|30))"
"""What programs like systemd are told to end by, counted from either end."""


def signal_number(name: str) -> int:
    """The number of ``"SIGTERM"``, ``"TERM"``, ``"15"`` or ``"RTMIN+3"``. Raises ValueError."""
    word = name.strip().upper()
    if word.isascii() and word.isdigit() and 0 < int(word) <= signal.SIGRTMAX:
        return int(word)
    if real_time := re.fullmatch(_REAL_TIME, word):
        return signal.SIGRTMIN + int(real_time[1]) if real_time[1] else signal.SIGRTMAX - int(real_time[2])
    try:
        return signal.Signals[word if word.startswith("SIG") else f"SIG{word}"].value
    except KeyError:
        raise ValueError(f"no such signal: {name!r}") from None


def signal_name(number: int) -> str:
    """``SIGKILL`` of 9; a real-time signal is called by its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_SIGNALS = "|".join(each.name.removeprefix("SIG") for each in signal.Signals if each.name.isalnum())
SignalName = Annotated[
    Text, pydantic.AfterValidator(_signal), looks("signal", f"(SIG)?({_SIGNALS})|{_REAL_TIME}|[1-9]|[1-5][0-9]")
]


def _variable(name: str) -> str:
    if not name or "=" in name:
        raise ValueError("a variable's name is not empty and has no = in it")
    return name


VariableName = Annotated[Text, pydantic.AfterValidator(_variable), looks("name", r"[^=\u0000]+")]


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if words and not words[0]:
        raise ValueError("must name a program")
    return words


Command = Annotated[Many[Text], pydantic.AfterValidator(_command)]


class Process(Section):
    """What is run and from which image: the fields that the core itself acts on."""

    table: ClassVar[str] = "container.*"

    image: Text = setting(
        doc='Where the root file system comes from: "host" (a copy-on-write view of this host), the path of a '
        "directory or an archive (a relative one must begin with ./ or ../ and starts at the spec's directory), or the "
        'name of an image in a registry: "nginx:1.27", "ghcr.io/org/app@sha256:...".',
        example="docker.io/library/nginx:1.27",
    )
    pull_policy: Literal["missing", "always", "never"] = setting(
        "missing",
        doc="When an image is fetched from its registry: when it is not here (`missing`), at each apply, in case its "
        "name means another one by now (`always`), or never.",
        change=Change.NOTHING,
        example="always",
        flags=("--pull",),
    )
    entrypoint: Command = setting(
        (),
        doc="Words before the command; the image's own if it is left out. Where it is set, the image's command is not "
        "used.",
        change=Change.RESTART,
        example=["/entry.sh"],
        flags=("--entrypoint",),
    )
    command: Command = setting(
        (),
        doc="The program and its arguments, or the arguments of the entrypoint; the image's own if it is left out. No "
        "shell is involved. A program without a slash is looked up in PATH.",
        change=Change.RESTART,
        example=["python3", "-m", "http.server", "80"],
    )
    environment: dict[VariableName, Text] = setting(
        {},
        doc="Variables for the program. Nothing of the host's environment is passed on but what is named here.",
        change=Change.RESTART,
        example={"TZ": "UTC"},
        flags=("-e", "--env"),
        execute=True,
    )
    working_dir: InsidePath = setting(
        "/",
        doc="The directory in which the program starts; made if it is missing.",
        change=Change.RESTART,
        flags=("-w", "--workdir"),
        execute=True,
    )
    depends_on: dict[Name, Literal["started", "healthy", "completed"]] = setting(
        {},
        doc="Containers of this app that come first, and what is waited for: that one has `started`, is `healthy`, or "
        "has ended with status 0 (`completed`). They are stopped in the reverse order.",
        change=Change.LIVE,
        example={"db": "healthy"},
    )
    goal: Literal["running", "healthy", "exit-0"] = setting(
        "running",
        doc="What `apply` waits for: that it runs, that it is healthy, or, for a task, that it ended with status 0.",
        change=Change.LIVE,
        example="exit-0",
    )
    replicas: Annotated[int, pydantic.Field(ge=1, le=10_000)] | None = setting(
        None,
        doc="So many containers of this kind, called NAME-1, NAME-2 and so on; left out there is one, called NAME.",
        change=Change.NOTHING,
        example=3,
    )
    tty: bool = setting(False, doc="Give the program a terminal.", change=Change.RESTART, flags=("-t", "--tty"))
    stdin_open: bool = setting(
        False,
        doc="Keep its standard input open for `attach`.",
        change=Change.RESTART,
        flags=("-i", "--interactive"),
    )
    stop_signal: SignalName = setting("SIGTERM", doc="The signal that asks the program to end.", change=Change.LIVE)
    stop_grace_period: Duration = setting("10s", doc="How long it may take before SIGKILL.", change=Change.LIVE)
    labels: dict[Text, Text] = setting(
        {}, doc="Words for people and tools.", change=Change.LIVE, flags=("-l", "--label")
    )

    @property
    def argv(self) -> tuple[str, ...]:
        """The words of the program that is run."""
        return self.entrypoint + self.command

    def with_image(self, config: ImageConfig) -> Self:
        """The image's words, where the spec has none; its variables and labels below those of the spec."""
        entrypoint, command = config.program(self.entrypoint, self.command)
        words = {
            "entrypoint": entrypoint,
            "command": command,
            "environment": {**config.environment, **self.environment},
            "labels": {**config.labels, **self.labels},
        }
        filled = type(self).model_validate({name: getattr(self, name) for name in self.model_fields_set} | words)
        asked = {"working_dir": config.working_dir, "stop_signal": config.stop_signal}
        return filled.left_open(**{name: value for name, value in asked.items() if value})

    def into_image(self, config: ImageConfig) -> ImageConfig:
        """What goes without saying is not said."""
        return replace(
            config,
            entrypoint=self.entrypoint,
            command=self.command,
            environment=self.environment,
            working_dir=self.working_dir if self.working_dir != "/" else "",
            stop_signal=self.stop_signal if self.stop_signal != "SIGTERM" else "",
            labels=self.labels,
        )


S = TypeVar("S", bound=Section)

Sections = Mapping[type[Section], Section]


def pick(sections: Sections, kind: type[S]) -> S:
    """The section of that kind. Raises KeyError where the table has none."""
    return cast(S, sections[kind])


@dataclass(frozen=True)
class Container:
    """One container as wanted. ``container[Process].command`` is a field of a section.

    ``id`` tells this container from an earlier one of the same name, on the host and in the run dir;
    it is empty until the engine gives it one.
    """

    app: App = field(repr=False, compare=False)
    name: str
    drivers: Mapping[str, str]
    """Area to chosen driver: ``{"network": "bridge", "storage": "overlayfs"}``."""
    sections: Sections
    id: str = ""
    service: str = ""
    """The name of its table in the file: its own name, or the one that its replicas share."""
    image: Image = field(default_factory=Image, compare=False)
    """What it is made of; empty until somebody has said it, and in what only the spec is asked about."""

    def __post_init__(self) -> None:
        if not self.service:
            object.__setattr__(self, "service", self.name)

    @property
    def full_name(self) -> str:
        """``APP/NAME``, as people say it."""
        return f"{self.app.name}/{self.name}"

    def __getitem__(self, kind: type[S]) -> S:
        return pick(self.sections, kind)

    def __contains__(self, kind: type[Section]) -> bool:
        return kind in self.sections

    def __iter__(self) -> Iterator[Section]:
        return iter(self.sections.values())

    def with_id(self, identity: str) -> Container:
        """The same container under an id."""
        return replace(self, id=identity)

    def made_of(self, image: Image) -> Container:
        """The same container, made of an image: what that says is in the sections, where the spec leaves it open.

        Raises ValueError for what the image cannot mean.
        """
        if image.config == ImageConfig():
            return replace(self, image=image)
        sections = {kind: section.with_image(image.config) for kind, section in self.sections.items()}
        return replace(self, image=image, sections=sections)

    def into_image(self) -> ImageConfig:
        """What an image that this container becomes says of itself."""
        config = self.image.config
        for section in self.sections.values():
            config = section.into_image(config)
        return config


@dataclass(frozen=True)
class App:
    """One file: containers, and the named tables that plugins declare beside them."""

    name: str
    directory: Path
    """Where relative paths start: the directory of the file."""
    tables: Mapping[str, Mapping[str, Sections]] = field(default_factory=dict[str, Mapping[str, Sections]])
    """``tables["network"]["default"]``: the sections of ``[network.default]``."""
    containers: Mapping[str, Container] = field(default_factory=dict[str, Container])
    source: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The file's content after interpolation, as plain values: what is kept of what was applied."""
    table_drivers: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """``table_drivers["network"]["default"]``: the driver chosen there, in tables where one can be chosen."""
    file: str = field(default="", compare=False)
    """The file's name as the user gave it, for messages."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False, compare=False)
    """Variables of who reads the file, which say where that person keeps credentials; never written down."""
    text: str = field(default="", repr=False, compare=False)
    """The file's text, to point into it when the host turns out to lack something; empty when not from a file."""
    alone: bool = field(default=False, compare=False)
    """Whether this is one container's part of it: the others are not in sight, and need not have gone."""
