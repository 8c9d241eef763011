"""Who is in which network, under which names and addresses: what is in the run dir, read anew when it has changed.

Nothing here needs the engine that wrote it: the next one's resolver answers from the same files.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from pycore_network.known import DIRECTORY, Known

RECORD = "network.json"


@dataclass(frozen=True)
class Member:
    """A container in one network."""

    id: str
    known: Known


@dataclass
class Network:
    """A network, and who is in it."""

    name: str
    internal: bool
    subnets: tuple[IPv4Network | IPv6Network, ...]
    by_name: dict[str, list[Member]] = field(default_factory=lambda: defaultdict[str, list[Member]](list))
    by_address: dict[str, Member] = field(default_factory=dict[str, Member])

    def add(self, member: Member) -> None:
        """One more container is in it."""
        known = member.known
        for name in {each.lower() for each in (*known.names, *known.aliases)}:
            self.by_name[name].append(member)
            self.by_name[f"{name}.{known.app.lower()}"].append(member)
        for address in known.addresses:
            self.by_address[address] = member


@dataclass(frozen=True)
class Asker:
    """A container that asks."""

    id: str
    app: str
    networks: tuple[Network, ...]

    @cached_property
    def confined(self) -> bool:
        """Whether none of its networks has a way out."""
        return all(network.internal for network in self.networks)

    def addresses(self, name: str) -> list[str] | None:
        """Those of all containers of that name, one after the other, as far as they share a network with this one.

        Of the containers of its own app, where one is called so; else of those of others. None where nobody is.
        """
        found: dict[str, Member] = {}
        for network in self.networks:
            for member in network.by_name.get(name, ()):
                found.setdefault(member.id, member)
        own = [member for member in found.values() if member.known.app == self.app]
        members = own or list(found.values())
        return [address for member in members for address in member.known.addresses] if members else None

    def names(self, address: str) -> list[str] | None:
        """What an address is called; none where nobody has it, None where it is of no network that this one is in."""
        for network in self.networks:
            member = network.by_address.get(address)
            if member:
                return [f"{name}.{member.known.app}" for name in member.known.names[:1]]
        parsed = ip_address(address)
        return [] if any(parsed in subnet for network in self.networks for subnet in network.subnets) else None


class Tables:
    """All networks of a run dir."""

    def __init__(self, run_dir: Path) -> None:
        self._directory = f"{run_dir}/networks"
        self._files: dict[str, _File] = {}
        """What was read, by path."""
        self._askers: dict[str, Asker] = {}
        """By address."""
        self._stale = True

    def changed(self) -> None:
        """Look again when somebody asks next. Any thread may say so."""
        self._stale = True

    def renew(self) -> bool:
        """Bring it up to date; whether there was anything to do."""
        if not self._stale:
            return False
        self._stale = False  # before the look: what changes during it is seen by the next
        files: dict[str, _File] = {}
        networks = [self._network(entry, files) for entry in _entries(self._directory)]
        self._files, self._askers = files, dict(_askers(networks))
        return True

    def asker(self, address: str) -> Asker | None:
        """The container that has this address."""
        return self._askers.get(address)

    def _network(self, entry: os.DirEntry[str], files: dict[str, _File]) -> Network:
        network = _described(entry.name, entry.path)
        for file in _entries(f"{entry.path}/{DIRECTORY}"):
            read = self._file(file)
            if read:
                files[file.path] = read
                if read.known:
                    network.add(Member(file.name, read.known))
        return network

    def _file(self, entry: os.DirEntry[str]) -> _File | None:
        """What a file says, as it was read before where it is the same still; None where it has just gone."""
        try:
            found = entry.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            before = self._files.get(entry.path)
            if before and before.stamp == stamp:
                return before
            text = Path(entry.path).read_text()
        except OSError:
            return None
        try:
            return _File(stamp, Known.of(text))
        except ValueError:  # of another version, which has other words: its container is not found by name
            return _File(stamp, None)


@dataclass(frozen=True)
class _File:
    stamp: tuple[int, int, int]
    """What tells it from the next file of that name."""
    known: Known | None


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """What is in a directory, but for files that are just being written; nothing where there is none."""
    try:
        with os.scandir(directory) as entries:
            return sorted((entry for entry in entries if not entry.name.endswith(".new")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _described(name: str, directory: str) -> Network:
    """A network as its record has it; one that is just being made is taken for one without a way out."""
    try:
        record: dict[str, Any] = json.loads(Path(f"{directory}/{RECORD}").read_text())
        subnets = tuple(ip_network(each) for each in record["subnets"])
        return Network(name, bool(record["internal"]), subnets)
    except (OSError, ValueError, KeyError, TypeError):
        return Network(name, internal=True, subnets=())


def _askers(networks: Iterable[Network]) -> Iterator[tuple[str, Asker]]:
    """Each address of each container, and what it may know."""
    homes: defaultdict[str, list[Network]] = defaultdict(list)
    members: defaultdict[str, list[Member]] = defaultdict(list)
    for network in networks:
        for member in dict.fromkeys(network.by_address.values()):
            homes[member.id].append(network)
            members[member.id].append(member)
    for identity, those in members.items():
        asker = Asker(identity, those[0].known.app, tuple(homes[identity]))
        yield from ((address, asker) for member in those for address in member.known.addresses)
