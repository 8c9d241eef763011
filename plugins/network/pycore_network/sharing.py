"""The driver ``container``: the network of another container, which both are in.

The other is started first. When it is started again, alone or made anew, it comes back into the network that those
who share it have kept, with new devices: they lose neither their own sockets nor the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from pycore.errors import Problem
from pycore.hookspecs import Driver, hookimpl
from pycore.launch.namespaces import NetworkOf
from pycore.ops import Operation
from pycore.spec import App, Container, Process, Section, Text, setting

DRIVER = "container"
_PREFIX = "container:"


class Sharing(Section):
    """Whose network it is in."""

    table: ClassVar[str] = "container.*.network"

    container: Text = setting(
        doc="The container whose network it shares: of this app by its name, of another as APP/NAME. It is started "
        "first, as if `depends_on` said so.",
        example="db",
    )

    @classmethod
    def of_word(cls, word: str) -> Mapping[str, Any] | None:
        """``network = "container:db"``."""
        return {"driver": DRIVER, "container": word.removeprefix(_PREFIX)} if word.startswith(_PREFIX) else None

    @classmethod
    def needs(cls, table: Mapping[str, Any]) -> Mapping[str, str]:
        """The other one comes first."""
        name = table.get("container")
        return {name: "started"} if table.get("driver") == DRIVER and isinstance(name, str) else {}


@hookimpl
def pycore_driver() -> Driver:
    return Driver("network", DRIVER, "The network of another container: its devices, addresses and ports.")


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Sharing]


@hookimpl
def pycore_validate(app: App) -> Iterable[Problem]:
    for container in app.containers.values():
        if Sharing in container:
            yield from _problems(app, container)


@hookimpl
def pycore_launch(container: Container) -> Iterable[Operation]:
    return [NetworkOf(shared_by(container))]


def shared_by(container: Container) -> str:
    """``APP/NAME`` of the container whose network this one shares."""
    name = container[Sharing].container
    if "/" in name:
        return name
    # One of this app is depended on, also where the rest of the app is not in sight; one of `run` is an app of its own.
    return f"{container.app.name}/{name}" if name in container[Process].depends_on else f"{name}/{name}"


def _problems(app: App, container: Container) -> Iterator[Problem]:
    path = ("container", container.service, "network", "container")
    name = container[Sharing].container
    if name in (container.name, container.full_name):
        yield Problem(path, "it would share the network with itself")
    elif "/" not in name and name not in app.containers and list(app.containers) != [app.name]:
        services = {each.service for each in app.containers.values()}
        hint = f"say which: {name}-1" if name in services else "that of another app is written APP/NAME"
        yield Problem(path, f"no container {name!r} to share the network of", hint)
