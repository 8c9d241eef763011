"""The reference page of the spec, made from the declared fields: ``python -m pycore.testing.reference FILE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pycore.plugins import Owner, Plugins, load_plugins
from pycore.source.layout import CONTAINER, Table, tables
from pycore.source.schema import Schema, section_schemas, values_of
from pycore.spec import Section

_INTRODUCTION = """\
# The spec

Every table and key of `app.toml`, made from what the installed plugins declare (`make docs`); `pycore schema` gives
the same to an editor. A spec is [TOML](https://toml.io) 1.1 with at least one `[container.NAME]` table and, at the top,
an optional `name` for the app: without it the app is called as its file, or as its directory if the file is `app.toml`.
A name has up to 63 letters, digits, `_`, `.` and `-`, and begins with a letter or a digit.

The column *Change* says what it takes to bring a changed value into force:

- **nothing**: nothing on the host depends on it.
- **live**: what differs on the host is undone and done; the program runs on.
- **restart**: the program is stopped and started; the writable layer and the address stay.
- **recreate**: the container is replaced by a new one.

In strings `${VAR}` is the variable of the command's environment, `${VAR:-default}` has a default, `${VAR:?message}` a
message for when it is missing, `${VAR:+other}` another value for when it is not; `$$` is a plain `$`.
"""

_HEAD = "| Key | Type | Default | Change | Meaning |\n| --- | --- | --- | --- | --- |"
_SHOWN = 8
"""So many words of a list are written out."""


def reference(plugins: Plugins) -> str:
    """The page, as Markdown."""
    definitions, sections = section_schemas(plugins)
    page = _Page(definitions, sections)
    kinds = tables(plugins)
    order = [CONTAINER, *(kind for kind in kinds if kind != CONTAINER)]
    parts = [_INTRODUCTION, *(page.table(table, plugins) for kind in order for table in kinds[kind])]
    return "\n".join(parts)


class _Page:
    def __init__(self, definitions: Schema, sections: dict[type[Section], Schema]) -> None:
        self.definitions = definitions
        self.sections = sections

    def table(self, table: Table, plugins: Plugins) -> str:
        """One table of the spec: what always counts, then what each driver adds."""
        lines = [f"## `[{table.pattern.replace('*', 'NAME')}]`", ""]
        always = [owner for owner in table.owners if owner.driver is None]
        rows = [row for owner in always for row in self._rows(owner)]
        if table.choices:
            words = _words(f'`"{name}"`' for name in table.choices)
            rows.insert(0, f'| `driver` | {words} | `"{table.default}"` | recreate | The {table.area} driver. |')
        if rows:
            lines += [_HEAD, *rows, ""]
        for name in table.choices:
            lines += [f'### `driver = "{name}"`', "", plugins.drivers[table.area][name].doc, ""]
            rows = [
                row for owner in table.owners if owner.driver and owner.driver.name == name for row in self._rows(owner)
            ]
            if rows:
                lines += [_HEAD, *rows, ""]
        return "\n".join(lines)

    def _rows(self, owner: Owner) -> Iterator[str]:
        schema = self.sections[owner.section]
        for name, field in schema["properties"].items():
            default = f"`{_toml(field['default'])}`" if "default" in field else ""
            if name in schema.get("required", ()):
                default = "required"
            meaning = field.get("description", "")
            for example in field.get("examples", ())[:1]:
                meaning += f" Example: `{_toml(example)}`."
            change = owner.section.change_of(name).name.lower()
            cells = (f"`{name}`", self._type(field), default, change, meaning)
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def _type(self, schema: Schema) -> str:
        """A type in words."""
        if "$ref" in schema:
            return self._type(self.definitions[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return _words(self._type(each) for each in schema["anyOf"])
        if "enum" in schema or "const" in schema:
            values = schema.get("enum") or [schema["const"]]
            shown = [f"`{_toml(value)}`" for value in values[:_SHOWN]]
            return _words(shown) if len(values) <= _SHOWN else f"{', '.join(shown)} and so on"
        kind = schema.get("type")
        if kind == "array":
            return f"array of {self._type(schema.get('items', {}))}"
        if kind == "object" and "properties" in schema:
            return "table of " + ", ".join(
                f"`{name}` ({self._type(each)})" for name, each in schema["properties"].items()
            )
        if kind == "object":
            return f"table of {self._type(values_of(schema))}"
        return str(schema.get("format") or kind or "anything")


def _words(words: Any) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *rest, last = dict.fromkeys(words)
    return f"{', '.join(rest)} or {last}" if rest else str(last)


def _toml(value: Any) -> str:
    """A value as TOML writes it; strings and arrays are the same in JSON."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {_toml(each)}" for key, each in cast(Schema, value).items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(load_plugins()), encoding="utf-8")
