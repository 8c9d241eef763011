"""Drivers of a third party, installed from wheels, run real containers; the guide shows these very packages."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.needs import ROOT

SAMPLES = ROOT / "tests/plugins"
SOURCES = sorted(path for path in SAMPLES.glob("sample_*/**/*") if path.suffix in {".py", ".toml"})


@dataclass
class Installed:
    """The installed command, with state of its own."""

    environment: Path
    directory: Path

    def __call__(self, *arguments: str, status: int = 0) -> str:
        own = {"PYCORE_RUN_DIR": str(self.directory / "run"), "PYCORE_DATA_DIR": str(self.directory / "data")}
        run = subprocess.run(
            [self.environment / "bin/pycore", *arguments],
            cwd=self.directory, env=os.environ | own, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == status, run.stdout + run.stderr
        return run.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def pycore(environment: Path, tmp_path: Path) -> Iterator[Installed]:
    command = Installed(environment, tmp_path)
    yield command
    for app in {name.partition("/")[0] for name in command("ps", "--all", "--quiet").split()}:
        command("down", app)


def write(directory: Path, text: str) -> str:
    file = directory / "app.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


STORAGE = """
name = "lookup"

[container.reader]
image = "host"
command = ["sh", "-c", "cat /etc/os-release; touch /etc/proof || echo refused"]

[container.reader.network]
driver = "none"

[container.reader.storage]
driver = "direct"
"""

NETWORK = """
name = "lab"

[container.probe]
image = "host"
command = ["python3", "-m", "http.server", "80", "--directory", "/usr/share/common-licenses"]

[container.probe.network]
driver = "ptp"
address = "10.93.7.2"
gateway = "10.93.7.1"
"""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(SAMPLES)))
def test_guide_shows_the_sample(source: Path) -> None:
    guide = (ROOT / "docs/writing-a-plugin.md").read_text(encoding="utf-8")
    language = {".py": "python", ".toml": "toml"}[source.suffix]
    assert f"```{language}\n{source.read_text(encoding='utf-8')}```" in guide


def test_installed_drivers_are_listed(pycore: Installed) -> None:
    listing = pycore("plugins")
    assert "pycore-ptp 1.0" in listing
    assert "pycore-direct 1.0" in listing


@pytest.mark.root
def test_storage_driver_runs_a_container(pycore: Installed) -> None:
    file = write(pycore.directory, STORAGE)
    assert "mount / read-only as the root" in pycore("plan", "-v", file)
    pycore("apply", file)
    pycore("wait", "lookup/reader")
    output = pycore("logs", "lookup/reader")
    assert "PRETTY_NAME" in output
    assert "refused" in output
    assert not Path("/etc/proof").exists()


def test_storage_driver_refuses_what_it_cannot_do(pycore: Installed) -> None:
    pycore("check", write(pycore.directory, STORAGE))
    missing = write(pycore.directory, STORAGE.replace('"host"', '"./nowhere"'))
    pycore("apply", missing, status=2)


@pytest.mark.root
def test_network_driver_connects_a_container(pycore: Installed) -> None:
    pycore("apply", write(pycore.directory, NETWORK))
    assert "Apache" in _get("http://10.93.7.2/Apache-2.0")


@pytest.mark.root
def test_address_of_a_network_driver_changes_live(pycore: Installed) -> None:
    pycore("apply", write(pycore.directory, NETWORK))
    before = pycore.json("inspect", "lab/probe")
    pycore("apply", write(pycore.directory, NETWORK.replace("10.93.7.2", "10.93.7.3")))
    after = pycore.json("inspect", "lab/probe")
    assert after["pid"] == before["pid"]
    assert after["address"] == "10.93.7.3"
    assert "Apache" in _get("http://10.93.7.3/Apache-2.0")


def test_wrong_address_is_shown_where_it_stands(pycore: Installed) -> None:
    file = write(pycore.directory, NETWORK.replace("10.93.7.2", "10.93.7.256"))
    run = pycore("check", file, status=2)
    assert run == ""


def _get(url: str) -> str:
    """What a server says, as soon as it does."""
    fetch = ["python3", "-c", f"import urllib.request as r; print(r.urlopen({url!r}, timeout=2).read().decode())"]
    for _ in range(40):
        run = subprocess.run(fetch, capture_output=True, text=True, check=False)
        if run.returncode == 0:
            return run.stdout
    raise AssertionError(run.stderr)
