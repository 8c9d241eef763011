"""Drivers of a third party, installed from wheels, run real containers; the guide shows these very packages."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycore_images.store import Store
from support.command import Command
from support.kept import keep
from support.needs import ROOT

SAMPLES = ROOT / "tests/plugins"
SOURCES = sorted(path for path in SAMPLES.glob("sample_*/**/*") if path.suffix in {".py", ".toml"})

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
command = ["/usr/bin/python3", "-m", "http.server", "80", "--directory", "/usr/share/common-licenses"]
stop_signal = "SIGKILL"

[container.probe.network]
driver = "ptp"
address = "10.93.7.2"
gateway = "10.93.7.1"
"""


@pytest.fixture
def pycore(environment: Path, tmp_path: Path) -> Iterator[Command]:
    """The command of the environment into which the wheels were installed."""
    command = Command(tmp_path, program=environment / "bin/pycore")
    yield command
    command.end()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(SAMPLES)))
def test_guide_shows_the_sample(source: Path) -> None:
    guide = (ROOT / "docs/writing-a-plugin.md").read_text(encoding="utf-8")
    language = {".py": "python", ".toml": "toml"}[source.suffix]
    assert f"```{language}\n{source.read_text(encoding='utf-8')}```" in guide


def test_installed_drivers_are_listed(pycore: Command) -> None:
    listing = pycore("plugins")
    assert "pycore-ptp 1.0" in listing
    assert "pycore-direct 1.0" in listing


def test_their_fields_are_checked_and_shown_where_they_stand(pycore: Command) -> None:
    error = pycore.fails("check", pycore.write(NETWORK.replace("10.93.7.2", "10.93.7.256")), status=2)
    assert "app.toml:11:11" in error
    assert "10.93.7.256" in error


@pytest.mark.needs("libseccomp")
def test_their_operations_are_in_the_plan(pycore: Command) -> None:
    assert "mount / read-only as the root" in pycore("plan", "-v", pycore.write(STORAGE))
    assert "10.93.7.2 on eth0 in the container" in pycore("plan", "-v", pycore.write(NETWORK))


@pytest.mark.root
@pytest.mark.needs("libseccomp")
def test_storage_driver_runs_a_container(pycore: Command) -> None:
    pycore("apply", pycore.write(STORAGE))
    pycore("wait", "lookup/reader")
    output = pycore("logs", "lookup/reader")
    assert "PRETTY_NAME" in output
    assert "refused" in output
    assert not Path("/etc/proof").exists()


@pytest.mark.root
@pytest.mark.needs("libseccomp")
def test_storage_driver_refuses_an_image_of_several_layers(pycore: Command) -> None:
    store = Store(pycore.data_dir / "images")
    store.tag("docker.io/library/two:latest", keep(store, "one", "two"))
    error = pycore.fails("apply", pycore.write(STORAGE.replace('"host"', '"two"')), status=2)
    assert 'app.toml:5:9: driver "direct" takes an image of one layer, and docker.io/library/two:latest has 2' in error
    assert pycore.json("ps", "-a") == []


@pytest.mark.root
@pytest.mark.needs("libseccomp")
def test_network_driver_connects_a_container_and_moves_live(pycore: Command) -> None:
    pycore("apply", pycore.write(NETWORK))
    assert "Apache" in get("http://10.93.7.2/Apache-2.0")
    (before,) = pycore.json("ps")
    pycore("apply", pycore.write(NETWORK.replace("10.93.7.2", "10.93.7.3")))
    assert "Apache" in get("http://10.93.7.3/Apache-2.0")
    (after,) = pycore.json("ps")
    assert after["pid"] == before["pid"]
    assert after["address"] == "10.93.7.3"


def get(url: str) -> str:
    """What a server says, as soon as it does."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read(), "utf-8")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
