"""One act under several names: ``image pull`` and, for those who type it often, ``pull``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from pycore.cli.parser import Act, Verb


def add(
    verb: Verb, names: Sequence[str], act: Act, text: str, arguments: Callable[[argparse.ArgumentParser], object]
) -> None:
    """Add a verb under each name; ``arguments`` says what it takes."""
    for name in names:
        arguments(verb(name, act, text))


def image_argument(parser: argparse.ArgumentParser, many: bool = False) -> None:
    """Which image, or images."""
    if many:
        parser.add_argument("images", metavar="IMAGE", nargs="+")
    else:
        parser.add_argument("image", metavar="IMAGE")
