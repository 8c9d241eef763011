"""What is made of the declared fields: the JSON Schema, the reference page."""

from __future__ import annotations

import json
from typing import Any

from pycore.plugins import load_plugins
from pycore.source.schema import json_schema
from pycore.testing.reference import reference
from support.needs import ROOT
from support.toys import toys

SCHEMA = json_schema(toys())
CONTAINER: dict[str, Any] = SCHEMA["properties"]["container"]["additionalProperties"]
NETWORK, WORD = CONTAINER["properties"]["network"]["anyOf"]


def test_a_word_may_stand_in_the_place_of_a_table_with_drivers() -> None:
    assert WORD["type"] == "string"
    assert "anyOf" not in CONTAINER["properties"]["resources"]


def test_a_field_keeps_its_words_and_its_change_class() -> None:
    ports = NETWORK["properties"]["ports"]
    assert ports == {
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "Ports.",
        "examples": [["8080:80"]],
        "x-pycore-change": "live",
        "x-pycore-driver": "bridge",
    }


def test_a_driver_is_one_of_those_there_are() -> None:
    assert NETWORK["properties"]["driver"] == {
        "enum": ["bridge", "host"],
        "default": "bridge",
        "description": "The network driver.",
    }
    named = SCHEMA["properties"]["network"]["additionalProperties"]
    assert named["properties"]["driver"]["enum"] == ["bridge"]


def test_what_is_needed_and_what_is_unknown() -> None:
    assert SCHEMA["required"] == ["container"]
    assert CONTAINER["required"] == ["image"]
    assert CONTAINER["additionalProperties"] is False
    assert SCHEMA["additionalProperties"] is False


def test_limits_choices_unions_and_forms() -> None:
    fields = CONTAINER["properties"]["resources"]["properties"]
    assert (fields["cpus"]["exclusiveMinimum"], fields["cpus"]["maximum"]) == (0, 1024)
    assert fields["level"]["enum"] == ["low", "high"]
    assert fields["memory"]["format"] == "size"
    assert fields["either"]["additionalProperties"]["anyOf"][0] == {"type": "integer"}
    point = fields["either"]["additionalProperties"]["anyOf"][1]["$ref"].rpartition("/")[2]
    assert SCHEMA["$defs"][point]["required"] == ["x", "y"]


def test_toml_has_no_null_and_no_python_names() -> None:
    text = json.dumps(json_schema(load_plugins()))
    assert "null" not in text
    assert '"title": "Image"' not in text


def test_the_reference_page_says_all_of_it() -> None:
    page = reference(toys())
    assert "## `[container.NAME.resources]`" in page
    assert "| `memory` | size |  | live | Memory. |" in page
    assert '| `level` | `"low"` or `"high"` | `"low"` | recreate | How much. |' in page
    assert "| `either` | table of integer or table of `x` (integer), `y` (integer) | `{}` |" in page
    assert '| `ports` | array of string | `[]` | live | Ports. Example: `["8080:80"]`. |' in page
    assert '| `driver` | `"bridge"` or `"host"` | `"bridge"` | recreate | The network driver. |' in page


def test_the_page_of_the_built_in_plugins_is_up_to_date() -> None:
    written = (ROOT / "docs/spec.md").read_text(encoding="utf-8")
    assert written == reference(load_plugins()), "make docs writes it anew"
