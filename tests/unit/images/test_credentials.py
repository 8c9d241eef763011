"""Credentials in the files of Docker and Podman, and with helpers."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pycore.errors import PycoreError
from pycore_images.registry import helpers
from pycore_images.registry.credentials import Credential, Credentials, docker_file

HELPER = """#!/bin/sh
cd "$(dirname "$0")"
[ "$1" = store ] && { cat > stored; exit; }
read -r server
file=$(echo "$server" | tr /: __)
[ -e "$file" ] || { echo credentials not found in native keychain; exit 1; }
case "$1" in
    get) cat "$file";;
    erase) rm "$file";;
esac
"""


def auth(words: str) -> dict[str, str]:
    return {"auth": base64.b64encode(words.encode()).decode()}


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "config.json"


@pytest.fixture
def environment(tmp_path: Path, docker: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(docker.parent),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
    }


def write(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def helper(tmp_path: Path, script: str = HELPER, name: str = "box") -> Path:
    program = tmp_path / "bin" / f"docker-credential-{name}"
    program.parent.mkdir(exist_ok=True)
    program.write_text(script, encoding="utf-8")
    program.chmod(0o755)
    return program.parent


def test_none(environment: dict[str, str]) -> None:
    assert Credentials(environment).get("ghcr.io") is None
    assert not Credentials(environment).erase("ghcr.io")


@pytest.mark.parametrize(
    "key",
    ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "http://docker.io/v2/"],
)
def test_each_name_of_dockers_registry(environment: dict[str, str], docker: Path, key: str) -> None:
    write(docker, {"auths": {key: auth("me:a:b")}})
    assert Credentials(environment).get("docker.io") == Credential("me", "a:b")
    assert Credentials(environment).get("index.docker.io.evil.example") is None


def test_each_form_of_an_entry(environment: dict[str, str], docker: Path) -> None:
    entries = {
        "plain.test": {"username": "me", "password": "word"},
        "identity.test": {**auth("me:"), "identitytoken": "refresh"},
        "bearer.test": {"registrytoken": "bearer"},
        "empty.test": {},
        "broken.test": {"auth": "%%%"},
        "list.test": [],
        "binary.test": {"auth": base64.b64encode(b"\xff\xfe:x").decode()},
    }
    write(docker, {"auths": entries})
    found = {name: Credentials(environment).get(f"{name}.test") for name in ("plain", "identity", "bearer")}
    assert found == {
        "plain": Credential("me", "word"),
        "identity": Credential("me", "", "refresh"),
        "bearer": Credential(bearer="bearer"),
    }
    for name in ("empty", "broken", "list", "binary", "other"):
        assert Credentials(environment).get(f"{name}.test") is None


def test_podmans_file_and_its_narrower_entries(environment: dict[str, str], docker: Path, tmp_path: Path) -> None:
    write(docker, {"auths": {"a.test": auth("docker:1")}})
    write(
        tmp_path / "run/containers/auth.json",
        {"auths": {"a.test": auth("podman:1"), "b.test": auth("b:1"), "b.test/team": auth("team:1")}},
    )
    found = Credentials(environment)
    assert found.get("a.test", "x/y") == Credential("docker", "1")
    assert found.get("b.test", "team/app") == Credential("team", "1")
    assert found.get("b.test", "teammate/app") == Credential("b", "1")
    write(tmp_path / "named.json", {"auths": {"a.test": auth("named:1")}})
    named = Credentials(environment | {"REGISTRY_AUTH_FILE": str(tmp_path / "named.json")})
    assert named.get("a.test") == Credential("named", "1")


def test_nothing_secret_is_shown() -> None:
    shown = repr(Credential("me", "secret1", "secret2", "secret3"))
    assert "me" in shown
    assert "secret" not in shown


def test_stored_whole_and_for_nobody_else(environment: dict[str, str], docker: Path) -> None:
    other = {"auths": {"x.test": auth("x:1"), "https://index.docker.io/v1/": auth("old:1")}, "HttpHeaders": {"a": "b"}}
    write(docker, other)
    docker.chmod(0o644)
    assert Credentials(environment).store("docker.io", Credential("me", "new")) == str(docker)
    assert stat.S_IMODE(docker.stat().st_mode) == 0o600
    values = json.loads(docker.read_text(encoding="utf-8"))
    other["auths"]["https://index.docker.io/v1/"] = auth("me:new")
    assert values == other
    assert Credentials(environment).erase("docker.io")
    del other["auths"]["https://index.docker.io/v1/"]
    assert json.loads(docker.read_text(encoding="utf-8")) == other
    assert [path.name for path in docker.parent.iterdir()] == ["config.json"]


def test_a_token_is_stored_without_the_password_that_it_stands_for(environment: dict[str, str], docker: Path) -> None:
    Credentials(environment).store("x.test", Credential("me", "pa55word", identity_token="token"))
    assert "pa55word" not in base64.b64decode(json.loads(docker.read_text())["auths"]["x.test"]["auth"]).decode()
    assert Credentials(environment).get("x.test") == Credential("me", "", identity_token="token")


def test_file_that_is_a_link_stays_one(environment: dict[str, str], docker: Path, tmp_path: Path) -> None:
    docker.symlink_to(tmp_path / "elsewhere" / "c.json")
    Credentials(environment).store("a.test", Credential("me", "word"))
    assert docker.is_symlink()
    assert Credentials(environment).get("a.test") == Credential("me", "word")


def test_first_login_makes_the_file(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    Credentials(environment).store("a.test", Credential("me", identity_token="refresh"))
    assert stat.S_IMODE((tmp_path / ".docker").stat().st_mode) == 0o700
    assert Credentials(environment).get("a.test") == Credential("me", "", "refresh")


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', "[" * 100_000, '"secret"'])
def test_file_that_is_something_else(environment: dict[str, str], docker: Path, text: str) -> None:
    docker.write_text(text, encoding="utf-8")
    for act in (
        lambda: Credentials(environment).get("a.test"),
        lambda: Credentials(environment).store("a.test", Credential("me", "word")),
    ):
        with pytest.raises(PycoreError) as caught:
            act()
        assert str(docker) in caught.value.message
        assert "secret" not in caught.value.message
    assert docker.read_text(encoding="utf-8") == text


def test_nobody_says_where() -> None:
    with pytest.raises(PycoreError, match="neither DOCKER_CONFIG nor HOME"):
        docker_file({})


def test_helper_of_a_registry_goes_before_that_for_all(
    environment: dict[str, str], docker: Path, tmp_path: Path
) -> None:
    write(docker, {"credHelpers": {"a.test": "box"}, "credsStore": "other", "auths": {"b.test": auth("b:1")}})
    place = helper(tmp_path)
    helper(tmp_path, "#!/bin/sh\necho credentials not found in native keychain; exit 1\n", "other")
    write(place / "a.test", {"ServerURL": "a.test", "Username": "me", "Secret": "word"})
    found = Credentials(environment)
    assert found.get("a.test") == Credential("me", "word")
    assert found.get("b.test") == Credential("b", "1"), "what no helper has may be in the file"
    write(place / "a.test", {"ServerURL": "a.test", "Username": "<token>", "Secret": "refresh"})
    assert found.get("a.test") == Credential(identity_token="refresh")


def test_helper_keeps_and_forgets(environment: dict[str, str], docker: Path, tmp_path: Path) -> None:
    write(docker, {"credsStore": "box"})
    place = helper(tmp_path)
    assert Credentials(environment).store("docker.io", Credential("me", "word")) == "docker-credential-box"
    stored = json.loads((place / "stored").read_text(encoding="utf-8"))
    assert stored == {"ServerURL": "https://index.docker.io/v1/", "Username": "me", "Secret": "word"}
    (place / "stored").rename(place / "https___index.docker.io_v1_")
    assert Credentials(environment).erase("docker.io")
    assert not Credentials(environment).erase("docker.io")
    assert "auths" not in json.loads(docker.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho secret; exit 3\n", "it ended with 3"),
        ("#!/bin/sh\necho secret\n", "no credential"),
        ("#!/bin/sh\necho '[]'\n", "no credential"),
        ('#!/bin/sh\necho \'{"Username": 1, "Secret": "secret"}\'\n', "no credential"),
        ("#!/nowhere/sh\n", "cannot be run"),
        ("#!/bin/sh\nexec sleep 1000\n", "has not answered"),
        ("#!/bin/sh\nsleep 1000 & sleep 1000\n", "has not answered"),
    ],
)
def test_helper_that_does_not_help(
    environment: dict[str, str],
    docker: Path,
    tmp_path: Path,
    script: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "not answered" in words:
        monkeypatch.setattr(helpers, "PATIENCE", 0.2)
    write(docker, {"credsStore": "box"})
    helper(tmp_path, script)
    with pytest.raises(PycoreError) as caught:
        Credentials(environment).get("a.test")
    assert words in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["none", "../../bin/sh", "", "a b"])
def test_helper_that_is_not_there(environment: dict[str, str], docker: Path, name: str) -> None:
    write(docker, {"credHelpers": {"a.test": name}})
    if not name:
        assert Credentials(environment).get("a.test") is None
        return
    with pytest.raises(PycoreError, match="is not there"):
        Credentials(environment).get("a.test")


def test_helper_that_cannot_keep(environment: dict[str, str], docker: Path, tmp_path: Path) -> None:
    write(docker, {"credsStore": "box"})
    helper(tmp_path, "#!/bin/sh\nexit 1\n")
    with pytest.raises(PycoreError, match="could not store"):
        Credentials(environment).store("a.test", Credential("me", "word"))
