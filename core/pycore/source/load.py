"""Reads a spec: TOML text to an App, or every problem of the file at once with its place."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import tomli

from pycore.errors import Problem, SpecError, UsageError
from pycore.plugins import Plugins
from pycore.source.build import MAX_PROBLEMS, Builder, Tree, Way
from pycore.source.positions import Place, line_column, places
from pycore.source.variables import VariableError, interpolate
from pycore.spec import App

MAX_FILE = 1 << 20
"""Bytes of a spec; a file of a thousand containers stays below it."""
MAX_DEPTH = 32
"""Tables and arrays inside each other."""
MAX_LINE = 2000
"""Characters of a source line that is kept for showing; a longer one was not written by hand."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"^[ \t]*(?:\[{{1,2}}[ \t]*)?(?:{_KEY}[ \t]*\.[ \t]*){{{MAX_DEPTH}}}", re.MULTILINE)
"""A dotted key of many parts: it names too deep a table, and a million of them keep the parser busy for long."""

_TOO_DEEP = "tables or arrays are nested too deeply"


def load_file(path: Path, plugins: Plugins, environment: Mapping[str, str]) -> App:
    """The App of a file. Raises SpecError, or UsageError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot read {path}: {reason}") from None
    directory = Path(os.path.abspath(path)).parent
    return load_text(text, file=str(path), directory=directory, plugins=plugins, environment=environment)


def load_text(
    text: str | bytes, *, file: str, directory: Path, plugins: Plugins, environment: Mapping[str, str]
) -> App:
    """The App of a TOML text. Raises SpecError with every problem, each with line, column and source line.

    ``file`` is what messages call it; ``directory`` is absolute, relative paths of the spec start there;
    ``environment`` is what ``${VAR}`` refers to.
    """
    decoded = _decode(text, file)
    tree, unresolved = _resolve(_parse(decoded, file), environment)
    builder = Builder(plugins)
    app = builder.app(tree, directory, _default_name(file, directory), file, decoded)
    bad = {problem.path: reference for problem, reference in unresolved}
    problems = [problem for problem, _ in unresolved]
    problems += [problem for problem in builder.problems if problem.path not in bad]
    problems = problems or plugins.validate(app)
    if problems:
        raise SpecError(locate(problems[:MAX_PROBLEMS], decoded, file, bad))
    return replace(app, environment=environment)


def load_source(
    source: Mapping[str, Any], *, directory: Path, plugins: Plugins, name: str = "app", alone: bool = False
) -> App:
    """The App of plain values, as :attr:`App.source` keeps them; ``name`` serves where they have none.

    ``alone`` says that it is one container's part of a spec that was checked as a whole: what it refers to may
    be missing. Raises SpecError; its problems have a path but no place, since there is no text.
    """
    builder = Builder(plugins, alone=alone)
    app = builder.app(source, directory, name)
    problems = builder.problems or ([] if alone else plugins.validate(app))
    if problems:
        raise SpecError(problems[:MAX_PROBLEMS])
    return app


def locate(
    problems: Sequence[Problem], text: str, file: str, needles: Mapping[Way, str] | None = None
) -> list[Problem]:
    """The problems with their places in the text they came from, in the order of these.

    A path that is not in the text (a default, a table left out) gets the place of the nearest table that is.
    ``needles`` tell by path which part of a string is meant, by its first characters. Without a text and a
    file, as where an App came from plain values, nothing is added.
    """
    if not text and not file:
        return list(problems)
    text = text.replace("\r\n", "\n")
    known = places(text)
    found: dict[Problem, int] = {}
    for problem in problems:
        path = problem.path
        while path not in known:
            path = path[:-1]
        offset = _offset(known[path], problem.at_key or path != problem.path)
        needle = (needles or {}).get(path)
        if needle:
            offset = max(offset, text.find(needle, offset, known[path].end))
        found[problem] = offset
    return [_at(problem, text, found[problem], file) for problem in sorted(found, key=lambda each: found[each])]


def _offset(place: Place, at_key: bool) -> int:
    return place.key if at_key else place.start


def _at(problem: Problem, text: str, offset: int, file: str) -> Problem:
    line, column = line_column(text, offset)
    start = offset - column + 1
    end = text.find("\n", start)
    source = text[start : len(text) if end < 0 else end]
    return replace(problem, file=file, line=line, column=column, source=source if len(source) <= MAX_LINE else "")


# -- from bytes to a tree ----------------------------------------------------------------------------


def _decode(text: str | bytes, file: str) -> str:
    """The text as TOML wants it. Raises SpecError where it is too long, or no Unicode text."""
    if len(text) > MAX_FILE:
        problem = Problem((), f"the file is larger than {MAX_FILE >> 20} MiB, the limit for a spec")
        raise SpecError([_at(problem, "", 0, file)])
    try:
        raw = text.encode() if isinstance(text, str) else text
        return raw.decode("utf-8-sig")
    except UnicodeEncodeError as error:
        before = error.object[: error.start]
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(errors="replace")
    problem = Problem((), "not a UTF-8 text")
    raise SpecError([_at(problem, before + "\N{REPLACEMENT CHARACTER}", len(before), file)])


def _parse(text: str, file: str) -> Tree:
    long_key = _LONG_KEY.search(text)
    if long_key:
        raise SpecError([_at(Problem((), _TOO_DEEP), text, long_key.start(), file)])
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        problem = _at(Problem((), _parser_words(error.msg)), error.doc, error.pos, file)
    except RecursionError:
        problem = _at(Problem((), _TOO_DEEP), text, 0, file)
    except ValueError:  # Python's own limit on the digits of an integer; the parser does not say where
        digits = re.search(r"[0-9_]{4000,}", text)
        problem = _at(Problem((), "a number has too many digits"), text, digits.start() if digits else 0, file)
    raise SpecError([problem])


def _parser_words(message: str) -> str:
    """The parser's message, with Python's way to write a key turned into TOML's."""
    if message == "Cannot overwrite a value":
        return "a key is there twice: the value before this place is its second"
    twice = re.fullmatch(r"Cannot declare \((.*?),?\) twice", message)
    if twice:
        return f"[{'.'.join(word.strip()[1:-1] for word in twice[1].split(','))}] is there twice"
    return f"not valid TOML: {message[:1].lower()}{message[1:]}"


def _resolve(tree: Tree, environment: Mapping[str, str]) -> tuple[Tree, list[tuple[Problem, str]]]:
    """The tree with variables filled in; and the values that no spec can have, each with what to look for there."""
    problems: list[tuple[Problem, str]] = []

    def walk(value: Any, path: Way) -> Any:
        if isinstance(value, str):
            try:
                return interpolate(value, environment)
            except VariableError as error:
                problems.append((Problem(path, str(error), error.hint), error.reference))
        elif isinstance(value, dict | list) and len(path) >= MAX_DEPTH:
            problems.append((Problem(path, _TOO_DEEP), ""))
        elif isinstance(value, dict):
            return {key: walk(each, (*path, key)) for key, each in cast("dict[str, object]", value).items()}
        elif isinstance(value, list):
            return [walk(each, (*path, index)) for index, each in enumerate(cast("list[object]", value))]
        else:
            complaint = _unfit(value)
            if complaint:
                problems.append((Problem(path, complaint), ""))
        return cast("object", value)

    return walk(tree, ()), problems[:MAX_PROBLEMS]


def _unfit(value: Any) -> str:
    """Why a value can be in a TOML file but in no spec: what is kept of a spec is JSON."""
    if isinstance(value, datetime.date | datetime.time):
        return "dates and times have no meaning in a spec; put it in quotes if a string is meant"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number has too many digits"
    return ""


def _default_name(file: str, directory: Path) -> str:
    """The file's name, or for the usual ``app.toml`` its directory's, with what a name cannot have replaced."""
    stem = Path(file).stem
    word = directory.name if stem == "app" else stem
    word = re.sub(r"[^A-Za-z0-9_.-]+", "-", word).lstrip("_.-")[:63]
    return word or "app"
