"""``[container.NAME.health]``: how to tell that a container is well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import HealthCheck, Host, Probe, hookimpl
from pycore.image import ImageConfig
from pycore.spec import (
    App,
    Change,
    Command,
    Container,
    Duration,
    InsidePath,
    Process,
    Section,
    Text,
    is_path,
    looks,
    parse_duration,
    setting,
)

from pycore_supervision.common import LongEnough, tables_of
from pycore_supervision.notation import parse_address, parse_url
from pycore_supervision.probes import CommandProbe, FileProbe, HttpProbe, TcpProbe, UnixProbe

WAYS = ("command", "shell", "http", "tcp", "unix", "file")
"""The fields of which a container has one."""

_DOCKER_TIMES = {
    "interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod", "start_interval": "StartInterval",
}  # fmt: skip
"""Our fields, and Docker's names for them in an image's configuration, where they are in nanoseconds."""

_HOST = r"(localhost|127\.0\.0\.1|\[::1\])"


def _url(text: str) -> str:
    parse_url(text)
    return text


def _address(text: str) -> str:
    parse_address(text)
    return text


Url = Annotated[
    Text, pydantic.AfterValidator(_url), looks("url", rf"(http://{_HOST})?:[1-9][0-9]{{0,3}}(/[A-Za-z0-9/]*)?")
]
Address = Annotated[Text, pydantic.AfterValidator(_address), looks("address", rf"{_HOST}?:[1-9][0-9]{{0,3}}")]


class Health(Section):
    """What is asked, how often, and what follows."""

    table: ClassVar[str] = "container.*.health"

    command: Command = setting(
        (),
        doc="A program and its arguments, run in the container: status 0 is well.",
        change=Change.LIVE,
        example=["pg_isready", "-q"],
    )
    shell: Text | None = setting(
        None,
        doc="A line for the container's /bin/sh, instead of `command`: status 0 is well.",
        change=Change.LIVE,
        example="test -s /run/ready || exit 1",
        flags=("--health-cmd",),
    )
    http: Url | None = setting(
        None,
        doc='A page: "http://ADDRESS:PORT/PATH" or ":PORT/PATH" for 127.0.0.1, asked from inside the container\'s '
        "network without any program there. A status of 200 to 399 is well.",
        change=Change.LIVE,
        example=":8080/healthz",
        flags=("--health-http",),
    )
    tcp: Address | None = setting(
        None,
        doc='A port that takes connections, asked in the same way: "ADDRESS:PORT" or ":PORT".',
        change=Change.LIVE,
        example=":5432",
        flags=("--health-tcp",),
    )
    unix: InsidePath | None = setting(
        None,
        doc="A socket in the container's file system that takes connections.",
        change=Change.LIVE,
        example="/run/app.sock",
        flags=("--health-unix",),
    )
    file: InsidePath | None = setting(
        None,
        doc="A file that is there when all is well.",
        change=Change.LIVE,
        example="/run/ready",
        flags=("--health-file",),
    )
    interval: LongEnough = setting(
        "30s",
        doc="How long after an answer it is asked again. One that is starting is asked sooner; in the first interval "
        "a failure does not count.",
        change=Change.LIVE,
        flags=("--health-interval",),
    )
    timeout: LongEnough = setting(
        "30s", doc="How long an answer may take.", change=Change.LIVE, flags=("--health-timeout",)
    )
    retries: Annotated[int, pydantic.Field(ge=1, le=1_000_000)] = setting(
        3,
        doc="So many failures in a row make it unhealthy; one success makes it healthy again.",
        change=Change.LIVE,
        flags=("--health-retries",),
    )
    start_period: Duration = setting(
        "0s",
        doc="For so long after the start failures do not count; the first success ends this.",
        change=Change.LIVE,
        flags=("--health-start-period",),
    )
    start_interval: LongEnough = setting(
        "5s",
        doc="How often one that is starting is asked at least; at first more often.",
        change=Change.LIVE,
        flags=("--health-start-interval",),
    )
    enabled: bool = setting(
        True,
        doc="Whether it is asked at all; the image's own check is turned off with it too.",
        change=Change.LIVE,
        example=False,
        flags=("--healthcheck",),
    )
    on_unhealthy: Literal["none", "restart", "stop"] = setting(
        "none",
        doc="What is done with a container that has become unhealthy. It is started again whatever `restart` says.",
        change=Change.LIVE,
        example="restart",
    )

    def with_image(self, config: ImageConfig) -> Self:
        """What the image asks, unless the spec asks something; its times where the spec names none."""
        check = config.healthcheck
        if not check or not self.enabled or any(getattr(self, way) for way in WAYS):
            return self
        match check.get("Test"):
            case ["CMD", *words] if words:
                asked: dict[str, Any] = {"command": words}
            case ["CMD-SHELL", str(line)]:
                asked = {"shell": line}
            case _:  # NONE; or nothing, which leaves it to an image below, that this one was made of
                return self
        for field, name in _DOCKER_TIMES.items():
            if nanoseconds := check.get(name):
                asked[field] = f"{nanoseconds / 1e6:.0f}ms"
        if retries := check.get("Retries"):
            asked["retries"] = retries
        return self.left_open(**asked)

    def into_image(self, config: ImageConfig) -> ImageConfig:
        """Docker knows programs and lines for a shell; other ways of asking stay the spec's own."""
        if not self.enabled:
            return replace(config, healthcheck={"Test": ["NONE"]})
        if not self.command and not self.shell:
            return config
        asked = {name: getattr(self, field) for field, name in _DOCKER_TIMES.items() if field in self.model_fields_set}
        check: dict[str, Any] = {"Test": ["CMD-SHELL", self.shell] if self.shell else ["CMD", *self.command]}
        check |= {name: round(parse_duration(time) * 1e9) for name, time in asked.items()}
        return replace(config, healthcheck=check | ({"Retries": self.retries} if self.retries != 3 else {}))


@hookimpl
def pycore_sections() -> Iterable[type[Section]]:
    """The table."""
    return [Health]


@hookimpl
def pycore_validate(app: App) -> Iterator[Problem]:
    """A table that says what to ask, and one thing only; an image by name may ask something by itself."""
    images = {each.service: each[Process].image for each in app.containers.values()}
    silent = {table for table, image in images.items() if image == "host" or is_path(image)}
    for table, health in tables_of(app, Health).items():
        ways = [way for way in WAYS if getattr(health, way)]
        path = ("container", table, "health")
        if len(ways) > 1:
            yield Problem((*path, ways[1]), f"{ways[0]} is there already: a container is asked in one way", at_key=True)
        elif not ways and health.model_fields_set and health.enabled and table in silent:
            hint = f"one of {', '.join(WAYS[:-1])} or {WAYS[-1]}"
            yield Problem(path, "does not say what is asked", hint=hint, at_key=True)


@hookimpl
def pycore_health(container: Container, host: Host) -> HealthCheck | None:
    """What the table says, if it says anything."""
    health = container[Health]
    probe = _probe(health) if health.enabled else None
    if probe is None:
        return None
    return HealthCheck(
        probe=probe,
        interval=parse_duration(health.interval),
        timeout=parse_duration(health.timeout),
        retries=health.retries,
        start_period=parse_duration(health.start_period),
        start_interval=parse_duration(health.start_interval),
        on_unhealthy=health.on_unhealthy,
    )


def _probe(health: Health) -> Probe | None:
    if health.command:
        return CommandProbe(health.command)
    if health.shell:
        return CommandProbe(("/bin/sh", "-c", health.shell))
    if health.http:
        return HttpProbe(parse_url(health.http))
    if health.tcp:
        return TcpProbe(parse_address(health.tcp))
    if health.unix:
        return UnixProbe(health.unix)
    return FileProbe(health.file) if health.file else None
