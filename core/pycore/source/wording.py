"""What is wrong with a value, in plain words: pydantic's findings, values as the file writes them, likely meanings."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pycore.errors import Problem

if TYPE_CHECKING:
    import pydantic
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_KINDS = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "an array",
    "list_type": "an array",
    "set_type": "an array",
    "frozenset_type": "an array",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
"""Errors that say "the value is of another type", and the type."""

_LIMITS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "must match {pattern}",
    "value_error": "{error}",
    "assertion_error": "{error}",
}

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 60
_MAX_GUESS = 64
"""Longer words are not compared with others: that would take time, and nobody mistypes them."""


def problems_of(error: pydantic.ValidationError, values: Mapping[str, Any], place: Path) -> list[Problem]:
    """Pydantic's errors about the values of a table at ``place``, one problem for each place in the file."""
    found: dict[tuple[Path, bool], list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        found.setdefault(_real_path(detail, values), []).append(detail)
    return [
        _problem(path, at_key, details, values, place)
        for (path, at_key), details in found.items()
        if not (_only_types(details) and any(_leads_into(other, path) for other in found))
    ]


def table_name(path: Iterable[str | int]) -> str:
    """``[container.web.network]``, quoted where TOML asks for it."""
    return f"[{'.'.join(key_text(key) for key in path)}]"


def key_text(key: str | int) -> str:
    """A key as TOML writes it."""
    text = str(key)
    return text if _BARE_KEY.fullmatch(text) and len(text) <= _LONGEST else shown(text)


def shown(value: Any) -> str:
    """A value in a few characters, as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(_cut(value), ensure_ascii=not value.isprintable())
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "an array"
    if isinstance(value, datetime.date | datetime.time):
        return "a date or time"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge number"
    return f"{value:g}" if isinstance(value, float) else str(value)


def likely(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    if len(word) > _MAX_GUESS:
        return None
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, known, 1)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The hint for a mistyped word, or None."""
    guess = likely(word, known)
    return None if guess is None else f"did you mean {shown(guess)}?"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _real_path(detail: ErrorDetails, values: Mapping[str, Any]) -> tuple[Path, bool]:
    """The way to the value through the file: pydantic also names members of a union, which stand in no file."""
    value: Any = values
    path: list[str | int] = []
    for part in detail["loc"]:
        if isinstance(value, Mapping) and part in value:
            value = cast(Mapping[str, Any], value)[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(items := cast("list[object]", value)):
            value = items[part]
        else:
            continue
        path.append(part)
    of_key = detail["type"] in ("missing", "extra_forbidden") or detail["loc"][-1:] in ((), ("[key]",))
    return tuple(path), of_key


def _only_types(details: Iterable[ErrorDetails]) -> bool:
    """Whether all that is said is that the value is of another type."""
    return all(detail["type"] in _KINDS for detail in details)


def _leads_into(other: tuple[Path, bool], path: Path) -> bool:
    """Whether something else is said of the inside of a value: then one member of a union took it for its own."""
    inner, at_key = other
    return inner[: len(path)] == path and (len(inner) > len(path) or at_key)


def _problem(
    path: Path, at_key: bool, details: Sequence[ErrorDetails], values: Mapping[str, Any], place: Path
) -> Problem:
    detail = details[0]
    whole = (*place, *path)
    if detail["type"] == "missing":
        needed = ", ".join(shown(str(each["loc"][-1])) for each in details)
        return Problem(whole, f"{table_name(whole)} needs {needed}", at_key=True)
    if detail["type"] == "extra_forbidden":
        return Problem(whole, f"unknown key {shown(str(path[-1]))} in {table_name(whole[:-1])}", at_key=True)
    value: Any = values
    for part in path:
        value = value[part]
    complaint = _complaint(details, str(path[-1]) if at_key and path else value)
    return Problem(whole, f"{_label(path) or table_name(whole)}: {complaint}", _array_hint(detail, value), at_key)


def _label(path: Path) -> str:
    """``ports[0]`` or ``environment.TZ``."""
    words = [f"[{part}]" if isinstance(part, int) else f".{key_text(part)}" for part in path]
    return "".join(words).removeprefix(".")


def _complaint(details: Sequence[ErrorDetails], value: Any) -> str:
    """One sentence for all that is said of one value; where a union's members disagree, the closest counts."""
    if _only_types(details):
        kinds = dict.fromkeys(_KINDS[detail["type"]] for detail in details)
        return f"must be {' or '.join(kinds)}, not {shown(value)}"
    return " or ".join(dict.fromkeys(_limit(detail, value) for detail in details if detail["type"] not in _KINDS))


def _limit(detail: ErrorDetails, value: Any) -> str:
    context = detail.get("ctx", {})
    if detail["type"] in ("literal_error", "enum"):
        return f"must be {str(context['expected']).replace(chr(39), chr(34))}, not {shown(value)}"
    wording = _LIMITS.get(detail["type"])
    plain = {key: shown(value) if isinstance(value, float) else value for key, value in context.items()}
    return wording.format(**plain) if wording else detail["msg"][:1].lower() + detail["msg"][1:]


def _array_hint(detail: ErrorDetails, value: Any) -> str | None:
    if _KINDS.get(detail["type"]) == "an array" and isinstance(value, str | int | float):
        return f"write it as [{shown(value)}]"
    return None
