"""Plugins made for tests of the core: one area with two drivers, one plugin that always counts, one that is broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pluggy
import pydantic
from pycore.errors import Problem
from pycore.hookspecs import GROUP, Driver, Hooks, hookimpl
from pycore.plugins import Plugins
from pycore.spec import App, Change, Many, Name, Section, Size, Text, setting


class Wired(Section):
    table = "container.*.network"

    ports: Many[Text] = setting((), doc="Ports.", change=Change.LIVE, example=["8080:80"])
    network: Name = setting("default", doc="The network.")

    @classmethod
    def of_word(cls, word: str) -> Mapping[str, Any] | None:
        return {"network": word} if word.islower() else None

    @classmethod
    def needs(cls, table: Mapping[str, Any]) -> Mapping[str, str]:
        return {table["network"]: "started"} if "network" in table else {}


class Net(Section):
    table = "network.*"

    subnet: Text | None = setting(None, doc="The subnet.", example="10.0.0.0/24")


class Point(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    x: int
    y: int


class Resources(Section):
    table = "container.*.resources"

    memory: Size | None = setting(None, doc="Memory.", change=Change.LIVE)
    cpus: Annotated[float, pydantic.Field(gt=0, le=1024)] | None = setting(None, doc="Processors.")
    pids: Annotated[int, pydantic.Field(ge=1)] = setting(4096, doc="Processes.")
    level: Literal["low", "high"] = setting("low", doc="How much.")
    either: dict[Text, int | Point] = setting({}, doc="A number or a point.")


class Wire:
    @hookimpl
    def pycore_driver(self) -> Driver:
        return Driver("network", "bridge", "A bridge.", default=True, of=("container", "network"))

    @hookimpl
    def pycore_sections(self) -> list[type[Section]]:
        return [Wired, Net]

    @hookimpl
    def pycore_validate(self, app: App) -> list[Problem]:
        return [
            Problem(("container", container.name, "network", "network"), "no such network", "declare it")
            for container in app.containers.values()
            if Wired in container and container[Wired].network not in ("default", *app.tables["network"])
        ]


class HostNetwork:
    @hookimpl
    def pycore_driver(self) -> Driver:
        return Driver("network", "host", "The host's.")


class Limits:
    @hookimpl
    def pycore_sections(self) -> list[type[Section]]:
        return [Resources]


def toys() -> Plugins:
    """These plugins and no others, whatever is installed."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    for name, plugin in (("net.bridge", Wire()), ("net.host", HostNetwork()), ("limits", Limits())):
        manager.register(plugin, name=name)
    return Plugins(manager, broken={"network.macvlan": "ImportError: no module named 'macvlan'"})
