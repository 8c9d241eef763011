"""Who somebody is to a registry: read from, and kept in, the files that Docker and Podman use.

Docker's ``config.json`` (``auths``, ``credHelpers``, ``credsStore``), then ``auth.json`` of containers-auth.json(5).
The client's are looked at: its environment is given to every function here, since a supervisor has another.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pycore.errors import PycoreError

from pycore_images.reference import DOCKER
from pycore_images.registry import helpers

_DOCKER_KEY = "https://index.docker.io/v1/"
"""What Docker calls its own registry in the file."""
_MAX_FILE = 4 << 20


@dataclass(frozen=True)
class Credential:
    """A name and its password, or a token that stands for both. Nothing of it is ever shown."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """A refresh token of OAuth 2: what a login got in place of the password."""
    bearer: str = field(default="", repr=False)
    """A token that goes to the registry as it is (``registrytoken``)."""


class Credentials:
    """Those that a client has. Files are read, and helpers called, when somebody asks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment

    def get(self, registry: str, repository: str = "") -> Credential | None:
        """What is known for a registry, or for a repository there. Raises PycoreError for a file or a helper that
        cannot be understood.
        """
        for path in self._files():
            values = _read(path)
            if (helper := _helper(values, registry)) and (found := self._ask(helper, registry)):
                return found
            if found := _in_auths(values, registry, repository):
                return found
        return None

    def store(self, registry: str, credential: Credential) -> str:
        """Keep a credential, in Docker's way; where, for people."""
        path = docker_file(self.environment)
        helper = _helper(_read(path), registry)
        if helper:
            name = "<token>" if credential.identity_token else credential.username
            secret = credential.identity_token or credential.password
            helpers.store(helper, _key(registry), name, secret, self.environment)
            return f"docker-credential-{helper}"
        with _changing(path) as values:
            auths = values.setdefault("auths", {})
            _forget(auths, registry)
            auths[_key(registry)] = _entry(credential)
        return str(path)

    def erase(self, registry: str) -> bool:
        """Forget what is kept for a registry, in Docker's way; whether there was anything."""
        path = docker_file(self.environment)
        values = _read(path)
        had = False
        if (helper := _helper(values, registry)) and self._ask(helper, registry):
            helpers.erase(helper, _key(registry), self.environment)
            had = True
        if _in_auths(values, registry, ""):
            with _changing(path) as changed:
                _forget(changed.setdefault("auths", {}), registry)
            had = True
        return had

    def _files(self) -> Iterator[Path]:
        if named := self.environment.get("REGISTRY_AUTH_FILE"):
            yield Path(named)
        yield docker_file(self.environment)
        yield Path(self.environment.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.geteuid()}", "containers/auth.json")
        if home := self.environment.get("HOME"):
            yield Path(self.environment.get("XDG_CONFIG_HOME") or f"{home}/.config", "containers/auth.json")

    def _ask(self, helper: str, registry: str) -> Credential | None:
        found = helpers.get(helper, _key(registry), self.environment)
        if found is None:
            return None
        name, secret = found
        return Credential(identity_token=secret) if name == "<token>" else Credential(name, secret)


def docker_file(environment: Mapping[str, str]) -> Path:
    """Docker's config.json. Raises PycoreError where the environment does not say where that is."""
    if directory := environment.get("DOCKER_CONFIG"):
        return Path(directory, "config.json")
    if home := environment.get("HOME"):
        return Path(home, ".docker", "config.json")
    raise PycoreError("neither DOCKER_CONFIG nor HOME says where credentials are kept")


def _key(registry: str) -> str:
    return _DOCKER_KEY if registry == DOCKER else registry


def _name(key: str) -> str:
    """The registry, or the repository below one, that a key of ``auths`` stands for."""
    name = re.sub(r"^https?://", "", key)
    name = re.sub(r"/(v[12]/?)?$", "", name)
    return re.sub(r"^(index|registry-1)\.docker\.io\b", DOCKER, name)


def _helper(values: Mapping[str, Any], registry: str) -> str:
    """The helper that keeps a registry's credential; one of its own goes before that for all."""
    own: Any = values.get("credHelpers", {})
    for key, helper in cast("dict[str, Any]", own if isinstance(own, dict) else {}).items():
        if _name(key) == registry and isinstance(helper, str):
            return helper
    store: Any = values.get("credsStore", "")
    return store if isinstance(store, str) else ""


def _in_auths(values: Mapping[str, Any], registry: str, repository: str) -> Credential | None:
    """From the file itself; the entry for the longest part of the repository's name."""
    auths: Any = values.get("auths", {})
    entries = cast("dict[str, Any]", auths if isinstance(auths, dict) else {})
    named = {_name(key): entry for key, entry in entries.items()}
    name = f"{registry}/{repository}" if repository else registry
    while True:
        if found := _credential(named.get(name)):
            return found
        if name == registry:
            return None
        name = name.rpartition("/")[0]


def _credential(entry: Any) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    values = {key: value for key, value in cast("dict[str, Any]", entry).items() if isinstance(value, str)}
    name, password = values.get("username", ""), values.get("password", "")
    if auth := values.get("auth"):
        try:
            name, _, password = base64.b64decode(auth, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            return None  # as Docker does: such an entry is none
    token, bearer = values.get("identitytoken", ""), values.get("registrytoken", "")
    return Credential(name, password, token, bearer) if token or bearer or (name and password) else None


def _entry(credential: Credential) -> dict[str, str]:
    name, token = credential.username, credential.identity_token
    password = "" if token else credential.password
    entry = {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}
    return entry | ({"identitytoken": token} if token else {})


def _forget(auths: dict[str, Any], registry: str) -> None:
    for key in [key for key in auths if _name(key) == registry]:
        del auths[key]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise PycoreError(f"{path}: {os.strerror(error.errno or 0)}") from error
    try:
        values: Any = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError):
        values = None  # what is wrong with it is not said: a piece of it could be a secret
    if not isinstance(values, dict) or not isinstance(cast("dict[str, Any]", values).get("auths", {}), dict):
        raise PycoreError(
            f"{path} does not hold what Docker keeps there", hint="mend it, or move it away and log in anew"
        )
    return cast("dict[str, Any]", values)


@contextlib.contextmanager
def _changing(path: Path) -> Generator[dict[str, Any]]:
    """The file's values, written back whole when they have been changed; for one writer at a time."""
    target = Path(os.path.realpath(path))  # where it is a link, that stays one
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PycoreError(f"{target.parent}: {os.strerror(error.errno or 0)}") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        values = _read(target)
        yield values
        _write(target, values)
        os.fsync(directory)
    except OSError as error:
        raise PycoreError(f"{target}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(directory)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """Only its owner may read it, from the first byte on."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file, indent="\t")
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
