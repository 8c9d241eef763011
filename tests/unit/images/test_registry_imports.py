"""What is dear to import is not paid for before a registry is spoken to."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEAR = {"urllib3", "http.client", "ssl", "email", "tomli", "isal", "subprocess"}


@pytest.mark.parametrize("module", ["pycore_images.reference", "pycore_images.registry.hosts"])
def test_names_and_hosts_cost_nothing(module: str) -> None:
    assert not loaded(module) & DEAR


@pytest.mark.parametrize("module", ["pull", "push", "login"])
def test_http_is_loaded_when_it_is_spoken(module: str) -> None:
    assert not loaded(f"pycore_images.registry.{module}") & (DEAR - {"subprocess"})


def loaded(module: str) -> set[str]:
    code = f"import sys; import {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())
