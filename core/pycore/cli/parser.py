"""The parser of command lines; each family of verbs says what its own take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pycore import __version__
from pycore.cli.session import Session
from pycore.engine import Engine
from pycore.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of ending the process: it may run in the supervisor."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise Ended(status, message or "")

    def print_help(self, file: Any = None) -> None:
        raise Ended(0, self.format_help())


class Ended(Exception):
    """The command line has been answered by the parser itself: with help, or with the version."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


Act = Callable[[Session, argparse.Namespace], int]
"""What does a verb; its exit status."""

Verb = Callable[[str, "Act | None", str], argparse.ArgumentParser]
"""Adds a verb: its name, what does it, one line about it, which is empty for a verb that people do not use. Returns its
parser, for what it takes. With nothing to do it it is the name of a group, whose verbs follow: ``image``, then
``image ls``."""

Family = Callable[[Verb, Engine], None]
"""Adds the verbs of one family; the engine's plugins may have flags of their own."""


def make_parser(engine: Engine, families: Sequence[Family]) -> argparse.ArgumentParser:
    """The parser for the verbs of all families."""
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser = Parser(
        prog="pycore",
        description="A declarative, plugin-based container runtime.",
        epilog="Before the verb: --run-dir DIR (PYCORE_RUN_DIR), --data-dir DIR (PYCORE_DATA_DIR).",
    )
    parser.add_argument("--version", action="version", version=f"pycore {__version__}")
    groups = {"": parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)}

    def verb(name: str, act: Act | None, text: str) -> argparse.ArgumentParser:
        group, _, last = name.rpartition(" ")
        parents = [common] if act else []
        if text:
            sub = groups[group].add_parser(last, parents=parents, description=text, help=text)
        else:  # without the help it is not listed
            sub = groups[group].add_parser(last, parents=parents)
        if act:
            sub.set_defaults(act=act)
        else:
            groups[name] = sub.add_subparsers(
                dest=f"verb of {name}", required=True, metavar="VERB", parser_class=Parser
            )
        return sub

    for family in families:
        family(verb, engine)
    return parser
