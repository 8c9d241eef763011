"""registries.toml: which servers stand for a registry."""

from __future__ import annotations

from pathlib import Path

import pytest
from pycore.errors import PycoreError
from pycore_images.registry.hosts import Endpoint, Hosts, Registry, is_loopback, read_hosts
from support.needs import ROOT

FULL = """
[registry."docker.io"]
mirrors = ["mirror.lan:5000", "cache.lan/hub/", "bad.lan"]
[registry."mirror.lan:5000"]
insecure = true
[registry."cache.lan"]
ca = "/etc/ssl/lan.pem"
[registry."bad.lan"]
blocked = true
"""


def test_nothing_is_configured(tmp_path: Path) -> None:
    hosts = read_hosts(tmp_path, tmp_path / "etc.toml")
    assert hosts.endpoints("docker.io") == [Endpoint("docker.io", "registry-1.docker.io")]
    assert hosts.endpoints("ghcr.io") == [Endpoint("ghcr.io", "ghcr.io")]
    assert hosts.itself("localhost:5000").schemes == ("https", "http")


def test_mirrors_with_tables_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "registries.toml").write_text(FULL, encoding="utf-8")
    hosts = read_hosts(tmp_path, tmp_path / "etc.toml")
    assert hosts.endpoints("docker.io") == [
        Endpoint("mirror.lan:5000", "mirror.lan:5000", schemes=("http",)),
        Endpoint("cache.lan", "cache.lan", "hub/", ca="/etc/ssl/lan.pem"),
        Endpoint("docker.io", "registry-1.docker.io"),
    ]
    assert hosts.endpoints("docker.io")[1].repository("library/nginx") == "hub/library/nginx"
    with pytest.raises(PycoreError, match=r"bad\.lan is blocked"):
        hosts.endpoints("bad.lan")


def test_example_of_the_document(tmp_path: Path) -> None:
    page = (ROOT / "docs/registries.md").read_text(encoding="utf-8")
    (tmp_path / "registries.toml").write_text(page.split("```toml")[1].split("```")[0], encoding="utf-8")
    hosts = read_hosts(tmp_path, tmp_path / "etc.toml")
    assert [each.server for each in hosts.endpoints("docker.io")] == [
        "mirror.lan:5000",
        "cache.lan",
        "registry-1.docker.io",
    ]


def test_data_dir_goes_before_etc(tmp_path: Path) -> None:
    (tmp_path / "etc.toml").write_text(
        "[registry.a]\nblocked = true\n[registry.b]\ninsecure = true\n", encoding="utf-8"
    )
    (tmp_path / "registries.toml").write_text("[registry.a]\n", encoding="utf-8")
    hosts = read_hosts(tmp_path, tmp_path / "etc.toml")
    assert hosts == Hosts({"a": Registry(), "b": Registry(insecure=True)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "registries.toml: "),
        ("[registries.a]", "unknown key 'registries' at the top; did you mean 'registry'?"),
        ("registry = 7", "registries are tables"),
        ("registry.a = 7", '[registry."a"] has to be a table'),
        ("registry.a.mirror = []", "unknown key 'mirror' in [registry.\"a\"]; did you mean 'mirrors'?"),
        ("registry.a.mirrors = 'b'", 'mirrors in [registry."a"] has to be an array of strings'),
        ("registry.a.mirrors = [1]", "has to be an array of strings"),
        ("registry.a.insecure = 1", 'insecure in [registry."a"] has to be true or false'),
        ("registry.a.ca = true", 'ca in [registry."a"] has to be a string'),
        ("registry.a.mirrors = ['http://b']", "say insecure = true"),
        ("registry.a.server = 'http://b'", "say insecure = true"),
        ("x = " + "[" * 10_000, "nested too deep"),
        ("#" * (1 << 20) + "#", "larger than 1 MiB"),
        ("x = '\udcff'", "registries.toml: "),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "registries.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(PycoreError) as caught:
        read_hosts(tmp_path, tmp_path / "etc.toml")
    assert words in caught.value.message
    assert str(tmp_path) in caught.value.message


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "registries.toml").mkdir()
    with pytest.raises(PycoreError, match="Is a directory"):
        read_hosts(tmp_path, tmp_path / "etc.toml")


@pytest.mark.parametrize(
    "server", ["localhost", "localhost:5000", "a.localhost", "127.0.0.1", "127.8.9.1:80", "[::1]:5"]
)
def test_on_this_host(server: str) -> None:
    assert is_loopback(server)


@pytest.mark.parametrize("server", ["localhost.example", "128.0.0.1", "127.0.0.1.example:80", "[::2]", "ghcr.io"])
def test_elsewhere(server: str) -> None:
    assert not is_loopback(server)
