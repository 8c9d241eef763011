"""pycore: a declarative, plugin-based container runtime. This is what a plugin author imports.

Names arrive on first use, so that ``import pycore.client`` stays as light as the command needs it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it: importing typing takes longer than a container's namespaces
if TYPE_CHECKING:
    from typing import Any

    from pycore.engine import Engine as Engine
    from pycore.errors import Problem as Problem
    from pycore.errors import PycoreError as PycoreError
    from pycore.hookspecs import Driver as Driver
    from pycore.hookspecs import Host as Host
    from pycore.hookspecs import Requirement as Requirement
    from pycore.hookspecs import hookimpl as hookimpl
    from pycore.ops import Context as Context
    from pycore.ops import InsideOperation as InsideOperation
    from pycore.ops import Operation as Operation
    from pycore.spec import App as App
    from pycore.spec import Change as Change
    from pycore.spec import Container as Container
    from pycore.spec import Section as Section
    from pycore.spec import setting as setting
    from pycore.steps import Phase as Phase
    from pycore.steps import Step as Step

__version__ = "0.1.0"

_HOMES = {
    "Engine": "engine",
    "Problem": "errors",
    "PycoreError": "errors",
    "Driver": "hookspecs",
    "Host": "hookspecs",
    "Requirement": "hookspecs",
    "hookimpl": "hookspecs",
    "Context": "ops",
    "InsideOperation": "ops",
    "Operation": "ops",
    "App": "spec",
    "Change": "spec",
    "Container": "spec",
    "Section": "spec",
    "setting": "spec",
    "Phase": "steps",
    "Step": "steps",
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pycore' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pycore.{home}"), name)
