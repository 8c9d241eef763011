"""Who is in which network, under which names and addresses: what is in the run dir, read anew when it has changed.

Nothing here needs the engine that wrote it: the next one's resolver answers from the same files.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
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

    def names(self) -> set[str]:
        """All that it is called there, in small letters."""
        bare = {each.lower() for each in (*self.known.names, *self.known.aliases)}
        return bare | {f"{name}.{self.known.app.lower()}" for name in bare}


@dataclass
class Network:
    """A network, and who is in it."""

    name: str
    internal: bool = True
    subnets: tuple[IPv4Network | IPv6Network, ...] = ()
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    """By id."""
    by_name: dict[str, dict[str, Member]] = field(default_factory=dict[str, dict[str, Member]])
    """All that are called so, by id."""
    by_address: dict[str, Member] = field(default_factory=dict[str, Member])

    def put(self, member: Member) -> None:
        """A container is in it, as it was or otherwise."""
        self.remove(member.id)
        self.members[member.id] = member
        for name in member.names():
            self.by_name.setdefault(name, {})[member.id] = member
        self.by_address |= dict.fromkeys(member.known.addresses, member)

    def remove(self, identity: str) -> None:
        """A container is not in it any more; one that never was is fine."""
        member = self.members.pop(identity, None)
        if member is None:
            return
        for name in member.names():
            del self.by_name[name][identity]
            if not self.by_name[name]:
                del self.by_name[name]
        for address in member.known.addresses:
            if self.by_address.get(address) is member:
                del self.by_address[address]


@dataclass(frozen=True)
class Asker:
    """A container that asks."""

    id: str
    app: str
    networks: tuple[Network, ...]

    @property
    def confined(self) -> bool:
        """Whether none of its networks has a way out."""
        return all(network.internal for network in self.networks)

    def addresses(self, name: str) -> list[str] | None:
        """Those of all containers of that name, one after the other, as far as they share a network with this one.

        Of the containers of its own app, where one is called so; else of those of others. None where nobody is.
        """
        found: dict[str, Member] = {}
        for network in self.networks:
            found = {**network.by_name.get(name, {}), **found}
        alike = [found[identity] for identity in sorted(found)]
        members = [member for member in alike if member.known.app == self.app] or alike
        return [address for member in members for address in member.known.addresses] if members else None

    def names(self, address: str) -> list[str] | None:
        """What an address is called; none where nobody has it, None where it is of no network that this one is in."""
        for network in self.networks:
            member = network.by_address.get(address)
            if member:
                return [f"{name}.{member.known.app}" for name in member.known.names[:1]]
        parsed = ip_address(address)
        return [] if any(parsed in subnet for network in self.networks for subnet in network.subnets) else None


@dataclass
class _Place:
    """A network's directory, as it was read."""

    network: Network
    record: _Stamp | None = None
    files: dict[str, _Stamp] = field(default_factory=dict[str, "_Stamp"])
    """By name, which is the container's id."""


_Stamp = tuple[int, int, int]
"""What tells a file from the next one of its name: inode, time of change, size."""


class Tables:
    """All networks of a run dir."""

    def __init__(self, run_dir: Path) -> None:
        self._directory = f"{run_dir}/networks"
        self._places: dict[str, _Place] = {}
        """By the network's name."""
        self._askers: dict[str, Asker | None] = {}
        """By address, as far as anybody has asked from there."""
        self._stale = True

    def changed(self) -> None:
        """Look again when somebody asks next. Any thread may say so."""
        self._stale = True

    def renew(self) -> bool:
        """Bring it up to date; whether there was anything to do. What has stayed the same is not read again."""
        if not self._stale:
            return False
        self._stale = False  # before the look: what changes during it is seen by the next
        there = set(_names(self._directory))
        self._places = {name: place for name, place in self._places.items() if name in there}
        for name in there:
            _update(self._places.setdefault(name, _Place(Network(name))), f"{self._directory}/{name}")
        self._askers.clear()
        return True

    def asker(self, address: str) -> Asker | None:
        """The container that has this address."""
        if address not in self._askers:
            if len(self._askers) >= _MOST_STRANGERS:
                self._askers.clear()
            self._askers[address] = self._asker(address)
        return self._askers[address]

    def is_ours(self, address: str) -> bool:
        """Whether an address is in any of the networks."""
        parsed = ip_address(address)
        return any(parsed in subnet for place in self._places.values() for subnet in place.network.subnets)

    def _asker(self, address: str) -> Asker | None:
        networks = [self._places[name].network for name in sorted(self._places)]
        member = next((network.by_address[address] for network in networks if address in network.by_address), None)
        if member is None:
            return None
        return Asker(member.id, member.known.app, tuple(each for each in networks if member.id in each.members))


_MOST_STRANGERS = 1 << 16
"""Addresses that are remembered; more than there are containers."""


def _names(directory: str) -> list[str]:
    """What is in a directory; nothing where there is none."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _update(place: _Place, directory: str) -> None:
    stamp = _stamp(f"{directory}/{RECORD}")
    if stamp is None or stamp != place.record:
        place.record = stamp
        _describe(place.network, directory)
    # Not scandir(3): what it tells of a file is no more than its name, and each would have to be looked at anyway.
    files: dict[str, _Stamp] = {}
    for name in _names(f"{directory}/{DIRECTORY}"):
        path = f"{directory}/{DIRECTORY}/{name}"
        stamp = _stamp(path)
        if stamp is None or name.endswith(".new"):  # just gone, or just being written
            continue
        files[name] = stamp
        if stamp != place.files.get(name):
            _read(place.network, name, path)
    for name in place.files.keys() - files.keys():
        place.network.remove(name)
    place.files = files


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(network: Network, identity: str, path: str) -> None:
    try:
        network.put(Member(identity, Known.of(Path(path).read_text())))
    except (OSError, ValueError):  # gone; or of another version with other words, and not found by name
        network.remove(identity)


def _describe(network: Network, directory: str) -> None:
    """What its record says; one that is just being made is taken for one without a way out."""
    network.internal, network.subnets = True, ()
    try:
        record: dict[str, Any] = json.loads(Path(f"{directory}/{RECORD}").read_text())
        network.subnets = tuple(ip_network(each) for each in record["subnets"])
        network.internal = bool(record["internal"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
