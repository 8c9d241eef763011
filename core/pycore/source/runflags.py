"""``pycore run``: flags in, a spec out. The flags are those that the installed plugins' fields declare.

A flag is a field of a section by another name, so a third party's field has its flag like our own, and
``--print-toml`` shows the very spec that is run.
"""

from __future__ import annotations

import argparse
import json
import random
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from pycore.errors import UsageError
from pycore.plugins import Plugins
from pycore.source.layout import CONTAINER, Table, tables
from pycore.spec import Fields, Section

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Form = Literal["text", "number", "integer", "switch", "list", "table"]

_HABITS = {"logging": ("--log-driver",)}
"""What Docker calls the choice of a driver, where that is not its area."""

_ADJECTIVES = ("bold", "brisk", "calm", "clear", "deft", "eager", "fair", "keen", "lucid", "neat", "quick", "wise")
_NOUNS = ("badger", "crane", "falcon", "finch", "heron", "ibex", "lynx", "marten", "otter", "raven", "stoat", "wren")


@dataclass(frozen=True)
class Flag:
    """A field that may be given on the command line."""

    names: tuple[str, ...]
    section: type[Section]
    field: str
    form: Form
    inner: Form
    """What a table's values are."""
    info: FieldInfo
    part: str = ""
    """Where the field is one of a table by name inside the section's field: its name there."""

    @property
    def between(self) -> str:
        """The signs that may stand between key and value."""
        return self.section.between_of(self.field)

    @property
    def key(self) -> str:
        """Where its value is kept in the parsed arguments."""
        return f"{self.section.table}:{self.field}:{self.part}"

    @property
    def table(self) -> str:
        """The container's sub-table: ``network``, or an empty string for the container's own table."""
        return self.section.table.partition("container.*")[2].lstrip(".")


def flags(plugins: Plugins) -> list[Flag]:
    """All flags of the installed plugins. The first to claim a name has it."""
    found: list[Flag] = []
    seen: set[str] = set()
    for owner in plugins.owners:
        if not owner.section.table.startswith("container.*"):
            continue
        for flag in _flags_of(owner.section):
            names = tuple(name for name in flag.names if name not in seen)
            if names:
                seen.update(names)
                found.append(replace(flag, names=names))
    return found


def _flags_of(section: type[Section]) -> Iterator[Flag]:
    for name, info in section.model_fields.items():
        if section.flags_of(name):
            form = _form(info.annotation)
            inner = _form(typing.get_args(info.annotation)[1]) if form == "table" else form
            yield Flag(section.flags_of(name), section, name, form, inner, info)
        for fields in _inside(info.annotation):
            for part, inside in fields.model_fields.items():
                if fields.flags_of(part):
                    form = _form(inside.annotation)
                    yield Flag(fields.flags_of(part), section, name, form, form, inside, part)


def _inside(annotation: Any) -> Iterator[type[Fields]]:
    """What the values of a table by name are, where they are tables that declare fields themselves."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is dict and isinstance(arguments[1], type) and issubclass(arguments[1], Fields):
        yield arguments[1]
    for argument in arguments:
        yield from _inside(argument)


def _form(annotation: Any) -> Form:
    """How a field's type is written on a command line."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _form(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _form(next(each for each in typing.get_args(annotation) if each is not type(None)))
    if origin is tuple:
        return "list"
    if origin is dict:
        return "table"
    forms: dict[Any, Form] = {bool: "switch", int: "integer", float: "number"}
    return forms.get(annotation, "text")


def add_arguments(parser: argparse.ArgumentParser, plugins: Plugins) -> None:
    """What ``run`` and ``create`` take."""
    parser.add_argument("--rm", action="store_true", help="remove the container when it has ended")
    parser.add_argument("--name", help="the container's name; made up if it is left out")
    parser.add_argument("--print-toml", action="store_true", help="print the spec, and run nothing")
    for table in _areas(plugins):
        text = f"{table.area}, in a word: {', '.join(table.choices)}, or what else may be there"
        names = (f"--{table.area}", *_HABITS.get(table.area, ()))
        parser.add_argument(*names, dest=table.area, action="append", metavar="WORD", default=[], help=text)
    for flag in flags(plugins):
        _add_flag(parser, flag)
    parser.add_argument("image", metavar="IMAGE", help="host, or the path of a directory or a tar file")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")


def _add_flag(parser: argparse.ArgumentParser, flag: Flag) -> None:
    doc = (flag.info.description or "").replace("%", "%%")
    text = doc.partition(". ")[0].rstrip(".")
    metavar = (flag.part or flag.field).upper()
    if flag.form == "switch":
        # --no-X where the field is on by default would be a second syntax: BooleanOptionalAction gives both.
        parser.add_argument(*flag.names, dest=flag.key, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif flag.form in ("list", "table"):
        metavar = f"KEY{flag.between[0]}VALUE" if flag.form == "table" else metavar
        parser.add_argument(*flag.names, dest=flag.key, action="append", metavar=metavar, help=text)
    else:
        kind: Any = {"integer": int, "number": float}.get(flag.form, str)
        parser.add_argument(*flag.names, dest=flag.key, type=kind, metavar=metavar, help=text)


def spec(arguments: argparse.Namespace, plugins: Plugins, environment: Mapping[str, str]) -> str:
    """The spec, as TOML, that the flags describe. Raises UsageError."""
    name = arguments.name or _made_up()
    container: dict[str, Any] = {"image": arguments.image}
    if arguments.command:
        container["command"] = arguments.command
    for table in _areas(plugins):
        for word in getattr(arguments, table.area):
            container[table.area] = _added(container.get(table.area, {}), _meant(table, word))
    _fill(container, flags(plugins), arguments, environment)
    source: dict[str, Any] = {"name": name, "container": {name: container}}
    source |= plugins.run_tables(source, name)
    return to_toml(source)


def _areas(plugins: Plugins) -> list[Table]:
    """The tables of a container in which a driver can be chosen."""
    return [table for table in tables(plugins)[CONTAINER] if table.word and table.choices]


def _meant(table: Table, word: str) -> dict[str, Any]:
    meant = table.of_word(word)
    if meant is None:
        raise UsageError(f"--{table.area} {word}: no such driver; there are {', '.join(table.choices)}")
    return meant


def _added(table: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Two words in one table: what are lists in both become one."""
    joined = {key: [*table[key], *more[key]] for key in table if isinstance(more.get(key), list)}
    return {**table, **more, **joined}


def _fill(
    container: dict[str, Any], wanted: Iterable[Flag], arguments: argparse.Namespace, environment: Mapping[str, str]
) -> None:
    """Put the values of flags that were given into a container's table."""
    for flag in wanted:
        value = getattr(arguments, flag.key, None)
        if value is not None:
            table = container.setdefault(flag.table, {}) if flag.table else container
            value = _pairs(value, environment, flag) if flag.form == "table" else value
            table[flag.field] = _of_first(table, flag, value) if flag.part else value


def _of_first(table: Mapping[str, Any], flag: Flag, value: Any) -> dict[str, Any]:
    """The field as a table by name, with a value for the first thing in it."""
    known = table.get(flag.field, flag.section.model_fields[flag.field].default)
    names = cast("Mapping[str, Any] | Sequence[str]", known)
    named = dict(names) if isinstance(names, Mapping) else {name: cast("dict[str, Any]", {}) for name in names}
    first = next(iter(named))
    return {**named, first: {**named[first], flag.part: value}}


def add_exec_arguments(parser: argparse.ArgumentParser, plugins: Plugins) -> None:
    """The fields that ``exec`` takes for one more program."""
    for flag in _exec_flags(plugins):
        _add_flag(parser, flag)
    text = "all powers, and no system-call filter: as strong as root on this host"
    parser.add_argument("--privileged", action="store_true", help=text)


def changes(arguments: argparse.Namespace, plugins: Plugins, environment: Mapping[str, str]) -> dict[str, Any]:
    """What differs for the program of an ``exec``, as a part of its container's table. Raises UsageError."""
    table: dict[str, Any] = {}
    if arguments.privileged:
        for section in (owner.section for owner in plugins.owners if owner.section.table.startswith("container.*")):
            for name in section.model_fields:
                value = section.privileged_of(name)
                if value is not None:
                    area = section.table.partition("container.*")[2].lstrip(".")
                    (table.setdefault(area, {}) if area else table)[name] = value
    _fill(table, _exec_flags(plugins), arguments, environment)
    return table


def _exec_flags(plugins: Plugins) -> list[Flag]:
    return [flag for flag in flags(plugins) if not flag.part and flag.section.is_for_execute(flag.field)]


def _made_up() -> str:
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_NOUNS)}-{random.randrange(1000):03}"


def _pairs(words: list[str], environment: Mapping[str, str], flag: Flag) -> dict[str, str | int]:
    """KEY=VALUE words as a table; a bare KEY takes its value from the caller's environment, as in Docker."""
    table: dict[str, str | int] = {}
    for word in words:
        sign = next((each for each in word if each in flag.between), "")
        key, _, value = word.partition(sign) if sign else (word, "", "")
        if not key or not (sign or flag.between == "="):
            raise UsageError(f"{flag.names[-1]}: {word!r} is not KEY{flag.between[0]}VALUE")
        if sign:
            table[key] = value if flag.inner == "text" else _number(value, flag)
        elif key in environment:
            table[key] = environment[key]
    return table


def _number(word: str, flag: Flag) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"{flag.names[-1]}: {word!r} is not a number") from None


def to_toml(source: Mapping[str, Any]) -> str:
    """Plain values as TOML text, with ``$`` doubled so that nothing is taken for a variable."""
    return "\n".join(_table_text(source, ())) + "\n"


def _table_text(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in _tables(table) if _is_table(path, key)}
    if path and (len(inner) < len(table) or not inner):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for key, value in table.items():
        if key not in inner:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        yield from _table_text(value, (*path, key))


def _tables(table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield key, cast("dict[str, Any]", value)


def _is_table(path: tuple[str, ...], key: str) -> bool:
    """Named tables and a container's areas get a header of their own; what is below them is written inline."""
    return len(path) < 2 or (len(path) == 2 and path[0] == "container" and key not in ("environment", "labels"))


def _key(key: str) -> str:
    bare = key and all(char.isascii() and (char.isalnum() or char in "_-") for char in key)
    return key if bare else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value.replace("$", "$$"))
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return "[" + ", ".join(map(_value, items)) + "]"
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in pairs) + " }" if pairs else "{}"
    return str(value)


def _text(text: str) -> str:
    """A basic string; JSON's escapes are TOML's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
