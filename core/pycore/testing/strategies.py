"""Hypothesis strategies for specs, made from the fields that plugins declare; nothing is written by hand per field.

A field's JSON Schema says what its values look like, its validator decides. Where a validator wants more than
the schema tells (a string in a form of its own), the field's declared examples serve; a type tells more with
:func:`pycore.spec.looks`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pydantic
from hypothesis import strategies as st

from pycore.errors import SpecError
from pycore.plugins import Plugins
from pycore.source.layout import CONTAINER, DRIVER, Table, tables
from pycore.source.load import load_source
from pycore.source.schema import Schema, section_schemas, values_of
from pycore.spec import NAME_PATTERN, App, Section

Source = dict[str, Any]
Values = st.SearchStrategy[Any]
Overrides = Mapping[str, Values]
"""Field, as ``"container.*.image"``, to the strategy that counts in place of the one made from its declaration."""

DIRECTORY = Path("/somewhere")
"""Where relative paths of the specs begin."""

_NAMES = ("default", "db", "web", "a.b", "x-1", "0")
"""Names that many tables have, so that some refer to each other."""
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_PLAIN: tuple[Any, ...] = ("a", ["a"], {"a": "a"})
"""A field that takes none of these wants more of its strings than its schema says."""
_ROUNDS = 20
_INT = 1 << 31


def apps(plugins: Plugins, fields: Overrides | None = None, name: str = "app") -> st.SearchStrategy[App]:
    """Valid apps, of one to three containers."""
    return specs(plugins, fields, name).map(lambda source: load_source(source, directory=DIRECTORY, plugins=plugins))


def specs(plugins: Plugins, fields: Overrides | None = None, name: str | None = None) -> st.SearchStrategy[Source]:
    """Valid specs as plain values, for :func:`pycore.source.load.load_source` or, as TOML, for a file."""
    drafts = _Drafts(plugins, fields or {}).source(name)
    valid = drafts.map(lambda draft: repaired(draft, plugins)).filter(bool)

    @st.composite
    def specs(draw: st.DrawFn) -> Source:
        """Told by its name: all its fields make more than hypothesis is willing to show."""
        return draw(valid)

    return specs()


def repaired(draft: Source, plugins: Plugins) -> Source:
    """A draft without the values that plugins refuse only when they see the whole; empty where that does not help.

    So no strategy needs to know that a port can be published once, or that a network must be declared.
    """
    source = copy.deepcopy(draft)
    for _ in range(_ROUNDS):
        try:
            load_source(source, directory=DIRECTORY, plugins=plugins)
        except SpecError as error:
            for problem in error.problems:
                _take_out(source, problem.path)
        else:
            return source
    return {}


def _take_out(source: Source, path: tuple[str | int, ...]) -> None:
    """Remove the last key on a path, as far as it is there; what is wrong with one item goes with the whole array."""
    place, rest = source, list(path)
    while len(rest) > 1 and isinstance(inner := place.get(str(rest[0])), dict) and rest[1] in inner:
        place = cast(Source, inner)
        del rest[0]
    if rest:
        place.pop(str(rest[0]), None)


class _Drafts:
    """Strategies for specs whose fields are valid, each on its own."""

    def __init__(self, plugins: Plugins, overrides: Overrides) -> None:
        self.plugins = plugins
        self.overrides = overrides
        self.kinds = tables(plugins)
        self.definitions, self.sections = section_schemas(plugins)

    def source(self, name: str | None) -> st.SearchStrategy[Source]:
        parts: dict[str, Values] = {"name": _names() if name is None else st.just(name)}
        for kind, shapes in self.kinds.items():
            least = 1 if kind == CONTAINER else 0
            parts[kind] = st.dictionaries(_names(), self.entry(shapes), min_size=least, max_size=least + 2)
        return st.fixed_dictionaries(parts)

    def entry(self, shapes: list[Table]) -> Values:
        """A ``[KIND.NAME]`` table with those inside it."""
        own: Values = self.table(shapes[0]) if not shapes[0].word else st.just({})
        inner: dict[str, Values] = {table.word: self.table(table) for table in shapes if table.word}
        return st.builds(_merged, own, st.fixed_dictionaries({}, optional=inner))

    def table(self, table: Table) -> Values:
        """One table: a driver, where one can be chosen, and fields that count for it."""
        if not table.choices:
            return self.fields(table, "")
        return st.one_of(
            self.fields(table, table.default),
            *(st.builds(_merged, self.fields(table, name), st.just({DRIVER: name})) for name in table.choices),
        )

    def fields(self, table: Table, driver: str) -> Values:
        needed: dict[str, Values] = {}
        optional: dict[str, Values] = {}
        for owner in table.owners:
            if owner.driver is None or owner.driver.name == driver:
                schema = self.sections[owner.section]
                for name, field in schema["properties"].items():
                    group = needed if name in schema.get("required", ()) else optional
                    group[name] = self.field(owner.section, name, field)
        return st.fixed_dictionaries(needed, optional=optional)

    def field(self, section: type[Section], name: str, schema: Schema) -> Values:
        override = self.overrides.get(f"{section.table}.{name}")
        if override is not None:
            return override
        if name == "replicas":
            return st.integers(1, 3)
        examples = [each for each in schema.get("examples", []) if _takes(section, name, each)]
        known = [*examples, *([schema["default"]] if "default" in schema else [])]
        declared = self.values(schema).filter(lambda value: _takes(section, name, value))
        if not known:
            return declared
        if self.is_open(schema) and not any(_takes(section, name, plain) for plain in _PLAIN):
            return st.sampled_from(known)
        return st.one_of(st.sampled_from(known), declared)

    def values(self, schema: Schema) -> Values:
        """Values that a schema describes."""
        if "$ref" in schema:
            return self.values(self.definitions[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return st.one_of([self.values(each) for each in schema["anyOf"]])
        if "enum" in schema or "const" in schema:
            return st.sampled_from(cast("list[Any]", schema.get("enum") or [schema["const"]]))
        return getattr(self, f"_{schema.get('type', 'string')}")(schema)  # type: ignore[no-any-return]

    def _string(self, schema: Schema) -> Values:
        least, most = schema.get("minLength", 0), schema.get("maxLength", 1 << 16)
        return _strings(schema.get("pattern")).filter(lambda text: least <= len(text) <= most)

    def _boolean(self, _: Schema) -> Values:
        return st.booleans()

    def _integer(self, schema: Schema) -> Values:
        least = schema.get("minimum", schema.get("exclusiveMinimum", -_INT - 1) + 1)
        most = schema.get("maximum", schema.get("exclusiveMaximum", _INT + 1) - 1)
        return st.integers(least, most)

    def _number(self, schema: Schema) -> Values:
        least, most = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        return st.floats(
            schema.get("minimum", -1e9 if least is None else least),
            schema.get("maximum", 1e9 if most is None else most),
            exclude_min=least is not None,
            exclude_max=most is not None,
            allow_subnormal=False,
        )

    def _array(self, schema: Schema) -> Values:
        if "prefixItems" in schema:
            return st.tuples(*map(self.values, schema["prefixItems"])).map(list)
        least = schema.get("minItems", 0)
        return st.lists(self.values(schema.get("items", {})), min_size=least, max_size=max(least + 2, 3))

    def _object(self, schema: Schema) -> Values:
        if "properties" in schema:
            needed = schema.get("required", ())
            parts = {name: self.values(each) for name, each in schema["properties"].items()}
            optional = {name: parts.pop(name) for name in list(parts) if name not in needed}
            return st.fixed_dictionaries(parts, optional=optional)
        pattern = next(iter(schema.get("patternProperties", {})), None)
        keys = self.values(schema["propertyNames"]) if "propertyNames" in schema else _strings(pattern)
        return st.dictionaries(keys, self.values(values_of(schema)), max_size=3)

    def is_open(self, schema: Schema) -> bool:
        """Whether there is a string in it of which the schema says nothing."""
        if "$ref" in schema:
            return self.is_open(self.definitions[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return any(map(self.is_open, schema["anyOf"]))
        kind = schema.get("type")
        if kind == "string":
            return not {"pattern", "enum", "const"} & schema.keys()
        if kind == "array":
            return any(map(self.is_open, [schema.get("items", {}), *schema.get("prefixItems", [])]))
        return kind == "object" and any(map(self.is_open, [values_of(schema), *schema.get("properties", {}).values()]))


def _merged(one: Source, other: Source) -> Source:
    return {**one, **other}


def _names() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(_NAMES), st.from_regex(NAME_PATTERN, fullmatch=True))


def _strings(pattern: str | None) -> st.SearchStrategy[str]:
    if pattern is None:
        return _TEXT
    if pattern == f"^{NAME_PATTERN}$":
        return _names()
    return st.from_regex(pattern.removeprefix("^").removesuffix("$"), fullmatch=True)


def _takes(section: type[Section], name: str, value: Any) -> bool:
    """Whether a field takes a value, whatever else its section wants."""
    try:
        section.model_validate({name: value})
    except pydantic.ValidationError as error:
        return all(detail["loc"][:1] != (name,) for detail in error.errors(include_url=False))
    return True
