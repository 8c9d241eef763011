"""The JSON Schema of a spec, with the sections of all installed plugins: for editors, reference and strategies."""

from __future__ import annotations

from typing import Any, cast

from pydantic.json_schema import models_json_schema

from pycore.plugins import Plugins
from pycore.source.layout import CONTAINER, DRIVER, Table, tables
from pycore.spec import NAME_PATTERN, Section

Schema = dict[str, Any]

_NAME: Schema = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
_USELESS = ("title", "x-pycore-flags", "x-pycore-between", "x-pycore-execute", "x-pycore-privileged")


def json_schema(plugins: Plugins) -> Schema:
    """The schema (JSON Schema 2020-12) of a whole file.

    ``x-pycore-change`` says what it takes to bring a changed field into force, ``x-pycore-driver`` the driver
    that a field belongs to. What several drivers know under one name may be what any of them takes.
    """
    definitions, sections = section_schemas(plugins)
    properties: Schema = {
        "name": {
            **_NAME,
            "description": "The app's name; without it the file's, or its directory's where the file is app.toml.",
        }
    }
    for kind, shapes in tables(plugins).items():
        named = _table(shapes[0], sections)
        for table in shapes:
            if table.word:
                named["properties"][table.word] = _or_word(table, _table(table, sections))
        properties[kind] = {"type": "object", "propertyNames": _NAME, "additionalProperties": named}
    properties[CONTAINER]["minProperties"] = 1
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pycore app.toml",
        "type": "object",
        "properties": properties,
        "required": [CONTAINER],
        "additionalProperties": False,
        "$defs": definitions,
    }


def section_schemas(plugins: Plugins) -> tuple[Schema, dict[type[Section], Schema]]:
    """Shared definitions, and each section's own schema: its ``properties`` and what is ``required``."""
    kinds = [owner.section for owner in plugins.owners]
    places, whole = models_json_schema([(kind, "validation") for kind in kinds])
    definitions: Schema = whole.get("$defs", {})
    names = {kind: places[kind, "validation"]["$ref"].rpartition("/")[2] for kind in kinds}
    sections = {kind: _tidy(definitions.pop(name)) for kind, name in names.items()}
    return {name: _tidy(definition) for name, definition in definitions.items()}, sections


def _table(table: Table, sections: dict[type[Section], Schema]) -> Schema:
    properties: Schema = {}
    required: list[str] = []
    for owner in table.owners:
        schema = sections[owner.section]
        for name, field in schema["properties"].items():
            shown = {**field, "x-pycore-driver": owner.driver.name} if owner.driver else field
            properties[name] = {"anyOf": [properties[name], shown]} if name in properties else shown
        if owner.driver is None:
            required += schema.get("required", [])
    if table.choices:
        properties[DRIVER] = {
            "enum": list(table.choices),
            "default": table.default,
            "description": f"The {table.area} driver.",
        }
    whole: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**whole, "required": required} if required else whole


def _or_word(table: Table, schema: Schema) -> Schema:
    """A word may stand in the place of a table in which a driver can be chosen."""
    if not table.choices:
        return schema
    word = {"type": "string", "description": f"The {table.area} driver, or what else a word can say here."}
    return {"anyOf": [schema, word]}


def _tidy(schema: Any) -> Any:
    """Without what says nothing about a TOML file: titles made of Python's names, and null, which TOML has not."""
    if isinstance(schema, list):
        return [_tidy(each) for each in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    tidy: Schema = {
        key: {name: _tidy(each) for name, each in value.items()} if key == "properties" else _tidy(value)
        for key, value in cast(Schema, schema).items()
        if key not in _USELESS and (key, value) != ("default", None)
    }
    choices = [each for each in tidy.get("anyOf", []) if each != {"type": "null"}]
    if len(choices) == 1:
        return {**choices[0], **{key: value for key, value in tidy.items() if key != "anyOf"}}
    return {**tidy, "anyOf": choices} if choices else tidy


def values_of(schema: Schema) -> Schema:
    """What the values of a table are whose keys are the user's choice; empty for anything."""
    for values in (*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")):
        if isinstance(values, dict):
            return cast(Schema, values)
    return {}
