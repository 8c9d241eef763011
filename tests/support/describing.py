"""A container with the fields that a test gives it, to be described without any host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pycore.spec import App, Container, Section

Make = Callable[..., Container]


def maker(kinds: Sequence[type[Section]]) -> Make:
    """``make(memory="1M")``: a container with these fields, each in the section of ``kinds`` that has it."""

    def container(name: str = "web", app: str = "shop", **fields: Any) -> Container:
        unknown = set(fields) - {field for kind in kinds for field in kind.model_fields}
        assert not unknown, unknown
        sections = {
            kind: kind.model_validate({key: value for key, value in fields.items() if key in kind.model_fields})
            for kind in kinds
        }
        return Container(App(app, Path("/")), name, {}, sections, id="c0ffee")

    return container
