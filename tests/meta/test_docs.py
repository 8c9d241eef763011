"""The documents keep up with the code: every hook is described, every example loads, every link leads somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pycore.hookspecs import Hooks
from pycore.plugins import load_plugins
from pycore.source.load import load_file
from pycore.steps import Step
from pycore.testing.reference import reference
from support.needs import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("changelog.d/*.md")])
HOOKS = [(name, spec) for name, spec in inspect.getmembers(Hooks, inspect.isfunction) if name.startswith("pycore_")]

SAMPLE_DRIVERS = re.compile(r'driver = "(direct|ptp)"')
"""Those of tests/plugins, which are not installed here; their specs run there."""

_TOML = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_HEADING = re.compile(r"^## `(\w+)\(([^)]*)\)", re.MULTILINE)


def _apps() -> list[object]:
    """Complete specs: the files of configs/, and the TOML blocks of the documents that define a container."""
    found = [pytest.param(path.read_text(encoding="utf-8"), id=path.name) for path in ROOT.glob("configs/*.toml")]
    for path in DOCUMENTS:
        for number, block in enumerate(_TOML.findall(path.read_text(encoding="utf-8")), 1):
            if "[container." in block and not SAMPLE_DRIVERS.search(block):
                found.append(pytest.param(block, id=f"{path.name}-{number}"))
    return found


def test_hooks_page_names_every_hook_with_its_arguments() -> None:
    page = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
    documented = dict(_HEADING.findall(page))
    expected = {name: ", ".join(list(inspect.signature(spec).parameters)[1:]) for name, spec in HOOKS}
    assert documented == expected


def test_hooks_page_names_them_in_the_order_of_the_calls() -> None:
    page = (ROOT / "docs/hooks.md").read_text(encoding="utf-8")
    written = [name for name, _ in _HEADING.findall(page)]
    assert written == [name for name in vars(Hooks) if name.startswith("pycore_")]


def test_architecture_names_every_step_in_order() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert rows == [step.name for step in Step]


def test_spec_page_is_what_the_fields_declare() -> None:
    page = (ROOT / "docs/spec.md").read_text(encoding="utf-8")
    assert page == reference(load_plugins()), "run `make docs`"


@pytest.mark.parametrize("text", _apps())
def test_example_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    file = tmp_path / "app.toml"
    file.write_text(text, encoding="utf-8")
    assert load_file(file, load_plugins(), {}).containers


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = [link for link in _LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
