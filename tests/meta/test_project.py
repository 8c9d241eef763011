"""`pyproject.toml` and the checkout agree: every source root is in every list, every package has its mark."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from support.needs import NEEDS, ROOT, debian_packages

PROJECT: dict[str, Any] = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
AREAS = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir() and path.name != "__pycache__")
ROOTS = ["core", *(f"plugins/{area.name}" for area in AREAS)]
PACKAGES = ["pycore", *(f"pycore_{area.name}" for area in AREAS)]


@pytest.mark.parametrize(
    ("where", "listed"),
    [
        ("tool.hatch.build.dev-mode-dirs", ROOTS),
        ("tool.hatch.build.targets.wheel.sources", ROOTS),
        ("tool.pyright.extraPaths", ROOTS),
        ("tool.mypy.packages", PACKAGES),
        ("tool.importlinter.root_packages", PACKAGES),
    ],
)
def test_list_names_every_source_root(where: str, listed: list[str]) -> None:
    found: Any = PROJECT
    for key in where.split("."):
        found = found[key]
    assert sorted(found) == sorted(listed)


def test_mypy_path_names_every_source_root() -> None:
    assert sorted(PROJECT["tool"]["mypy"]["mypy_path"].split(":")) == sorted(ROOTS)


def test_import_contracts_name_every_area() -> None:
    forbidden, *_ = (item for item in PROJECT["tool"]["importlinter"]["contracts"] if item["type"] == "forbidden")
    independent, *_ = (item for item in PROJECT["tool"]["importlinter"]["contracts"] if item["type"] == "independence")
    assert sorted(forbidden["forbidden_modules"]) == sorted(independent["modules"]) == sorted(PACKAGES[1:])


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_typed(package: str) -> None:
    roots = [ROOT / root for root in ROOTS]
    assert [root for root in roots if (root / package / "py.typed").exists()]


def test_every_entry_point_is_a_module_of_its_area() -> None:
    for name, module in PROJECT["project"]["entry-points"]["pycore"].items():
        area, _, plugin = name.partition(".")
        assert module == f"pycore_{area}.{plugin}"
        place = ROOT / "plugins" / area / f"pycore_{area}"
        assert (place / f"{plugin}.py").exists() or (place / plugin / "__init__.py").exists(), module


def test_packages_of_needs_are_in_the_one_list() -> None:
    wanted = {package for need in NEEDS.values() for package in need.packages}
    assert wanted <= set(debian_packages())
