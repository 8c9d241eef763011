"""The driver ``host``: no network namespace, so the container is on the host's network as any process is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pycore.errors import Problem
from pycore.hookspecs import Driver, hookimpl
from pycore.spec import App, Many, Section, Text, setting


class HostNetwork(Section):
    """What a container on the host's network cannot have, known so that the error can say why."""

    table: ClassVar[str] = "container.*.network"

    ports: Many[Text] = setting((), doc="Not with the driver host: what listens there listens on the host already.")


@hookimpl
def pycore_driver() -> Driver:
    return Driver("network", "host", "The host's own network: no isolation, no address of its own.")


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [HostNetwork]


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    return [
        Problem(
            ("container", container.service, "network", "ports"),
            "ports cannot be published with the driver host: its ports are the host's own",
            'leave `ports` out, or take `driver = "bridge"`',
        )
        for container in app.containers.values()
        if HostNetwork in container and container[HostNetwork].ports
    ]
