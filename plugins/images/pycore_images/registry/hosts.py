"""Which servers stand for a registry, and how they are spoken to: ``registries.toml``.

    [registry."docker.io"]
    mirrors = ["mirror.lan:5000", "cache.lan/dockerhub"]    # asked first, in this order, when something is pulled

    [registry."mirror.lan:5000"]
    insecure = true                                         # plain HTTP

    [registry."cache.lan"]
    ca = "/etc/ssl/lan.pem"                                 # trusted beside the host's own authorities

    [registry."registry.bad"]
    blocked = true

A mirror is a registry too, with a table of its own where it needs one.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from pycore.errors import PycoreError

from pycore_images.reference import DOCKER

FILE = "registries.toml"

ETC = Path("/etc/pycore") / FILE
"""For all data dirs of a host; the file in a data dir goes before it, registry by registry."""

_DOCKER_SERVER = "registry-1.docker.io"
_MAX_FILE = 1 << 20


@dataclass(frozen=True)
class Registry:
    """What is configured for a registry."""

    server: str = ""
    """Host and port that serve it, where it is not its name."""
    mirrors: tuple[str, ...] = ()
    """Registries that have the same, perhaps below a path: ``host[:port][/path]``."""
    insecure: bool = False
    """Plain HTTP."""
    ca: str = ""
    """A file of certificates of authorities, PEM."""
    blocked: bool = False
    """Nothing is pulled from it or pushed to it."""


@dataclass(frozen=True)
class Endpoint:
    """A server that can be asked for a registry's images."""

    registry: str
    """Whose credentials it gets: its own name, also where it is the mirror of another."""
    server: str
    """Host and perhaps port."""
    prefix: str = ""
    """What its repositories are put under: ``dockerhub/``."""
    schemes: tuple[str, ...] = ("https",)
    """Tried in this order."""
    ca: str = ""

    def repository(self, name: str) -> str:
        """A repository's name on this server."""
        return f"{self.prefix}{name}"


@dataclass(frozen=True)
class Hosts:
    """What is known of registries."""

    registries: Mapping[str, Registry] = field(default_factory=dict[str, Registry])

    def itself(self, registry: str) -> Endpoint:
        """The registry's own server, which is what something is pushed to. Raises PycoreError if it is blocked."""
        known = self.registries.get(registry, Registry())
        if known.blocked:
            raise PycoreError(f"the registry {registry} is blocked", hint=f"by {FILE}")
        server = known.server or (_DOCKER_SERVER if registry == DOCKER else registry)
        return Endpoint(registry, server, "", _schemes(server, known), known.ca)

    def endpoints(self, registry: str) -> list[Endpoint]:
        """Its mirrors, and then itself. Raises PycoreError if it is blocked."""
        last = self.itself(registry)
        return [*self._mirrors(self.registries.get(registry, Registry()).mirrors), last]

    def _mirrors(self, mirrors: Sequence[str]) -> Iterator[Endpoint]:
        for mirror in mirrors:
            name, _, path = mirror.partition("/")
            known = self.registries.get(name, Registry())
            if not known.blocked:
                server = known.server or name
                yield Endpoint(name, server, f"{path.strip('/')}/" if path else "", _schemes(server, known), known.ca)


def read_hosts(data_dir: Path, etc: Path = ETC) -> Hosts:
    """What the host's files say of registries. Raises PycoreError for a file that cannot be understood."""
    return Hosts({**_read(etc), **_read(data_dir / FILE)})


def is_loopback(server: str) -> bool:
    """Whether a server can only be on this host: its name says so, nothing is asked."""
    name = host_of(server)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(server: str) -> str:
    """A server without its port, an IPv6 address without its brackets."""
    if server.startswith("["):
        return server[1:].partition("]")[0]
    return server.partition(":")[0]


def _schemes(server: str, known: Registry) -> tuple[str, ...]:
    """As Docker does: what is on this host may speak plain HTTP, and is asked for better first."""
    if known.insecure:
        return ("http",)
    return ("https", "http") if is_loopback(server) and not known.ca else ("https",)


def _read(path: Path) -> dict[str, Registry]:
    import tomli

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PycoreError(f"{path}: {os.strerror(error.errno or 0)}") from error
    try:
        if len(data) > _MAX_FILE:
            raise ValueError(f"larger than {_MAX_FILE >> 20} MiB")
        return _registries(tomli.loads(data.decode()))
    except RecursionError as error:
        raise PycoreError(f"{path}: nested too deep") from error
    except ValueError as error:  # also of TOML and of UTF-8
        raise PycoreError(f"{path}: {error}") from error


def _registries(values: Mapping[str, Any]) -> dict[str, Registry]:
    _known_keys(values, ["registry"], "at the top")
    tables: Any = values.get("registry", {})
    if not isinstance(tables, dict):
        raise ValueError('registries are tables: [registry."registry.example"]')
    return {name: _registry(name, table) for name, table in cast("dict[str, Any]", tables).items()}


def _registry(name: str, table: Any) -> Registry:
    where = f'[registry."{name}"]'
    if not isinstance(table, dict):
        raise ValueError(f"{where} has to be a table")
    values = cast("dict[str, Any]", table)
    _known_keys(values, [one.name for one in fields(Registry)], f"in {where}")
    if "mirrors" in values:
        values = {**values, "mirrors": _strings(values["mirrors"], f"mirrors in {where}")}
    for one in fields(Registry):
        if not isinstance(values.get(one.name, one.default), type(one.default)):
            what = "true or false" if isinstance(one.default, bool) else "a string"
            raise ValueError(f"{one.name} in {where} has to be {what}")
    for server in (values.get("server", ""), *values.get("mirrors", ())):
        if "://" in server:
            raise ValueError(f"{server!r} in {where}: a host without a scheme; for plain HTTP say insecure = true")
    return Registry(**cast("dict[str, Any]", values))


def _strings(value: Any, where: str) -> tuple[str, ...]:
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, str) and item for item in items):
        raise ValueError(f"{where} has to be an array of strings")
    return tuple(cast("list[str]", items))


def _known_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"unknown key {key!r} {where}{guess}")
