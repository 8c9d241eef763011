"""Plugins are asked one by one, with the arguments that each names; a failure has the name of who failed."""

from __future__ import annotations

import pluggy
import pytest
from pycore.errors import PluginError
from pycore.hookspecs import GROUP, Hooks, Requirement, hookimpl
from pycore.linux.look import Look
from pycore.plugins import Plugins
from pycore.testing.fake import FakeKernel


def plugins_of(**each: object) -> Plugins:
    """Those alone, none that is installed."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    for name, plugin in each.items():
        manager.register(plugin, name=name)
    manager.check_pending()
    return Plugins(manager)


class Needing:
    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def pycore_requirements(self, look: Look) -> list[Requirement]:
        return [Requirement(name, met=look.exists("/"), why="", mend="") for name in self.names]


class Nothing:
    @hookimpl
    def pycore_requirements(self) -> None:
        """Without the argument that it has no use for."""


class Failing:
    @hookimpl
    def pycore_requirements(self, look: Look) -> list[Requirement]:
        raise ZeroDivisionError(look)


class Wrapping:
    @hookimpl(hookwrapper=True)
    def pycore_requirements(self, look: Look):  # type: ignore[no-untyped-def]
        yield


def test_each_is_asked_in_the_order_of_names_and_none_is_no_answer() -> None:
    plugins = plugins_of(two=Needing("c"), one=Needing("a", "b"), nothing=Nothing())
    found = plugins.requirements(FakeKernel())
    assert list(found) == ["nothing", "one", "two"]
    assert {name: [item.what for item in items] for name, items in found.items()} == {
        "nothing": [],
        "one": ["a", "b"],
        "two": ["c"],
    }


def test_what_fails_is_named() -> None:
    with pytest.raises(PluginError, match="plugin 'bad' failed in pycore_requirements for this host: ZeroDivision"):
        plugins_of(bad=Failing()).requirements(FakeKernel())


def test_nobody_wraps_others() -> None:
    with pytest.raises(PluginError, match="plugin 'wide': pycore_requirements wraps others"):
        plugins_of(wide=Wrapping()).requirements(FakeKernel())
