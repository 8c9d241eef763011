"""What a network is: the fields of ``[network.NAME]`` that all drivers have, and a network of this host as a value.

A network that exists has a record, ``network.json`` in a directory of the run dir, beside the leases of its addresses.
One made by ``pycore network create`` has its record in the data dir as well, and outlives containers and boots.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, ClassVar

import pydantic
from pycore.hookspecs import Host
from pycore.spec import App, Change, Many, Name, Section, Text, setting

from pycore_network.ops.lease import RECORD

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

DEFAULT = "default"
"""The network that an app has without declaring one."""
BRIDGE = "bridge"
"""The driver of a network that names none."""
_LARGE = 1 << 16
"""Bytes: more than a record has."""
_ROOM = {4: (8, 29), 6: (8, 124)}
"""Version to the lengths of prefixes of the largest and the smallest subnet."""


def _subnet(text: str) -> str:
    try:
        subnet = ip_network(text)
    except ValueError:
        subnet = None
    if subnet is None or "/" not in text:
        raise ValueError('must be a network such as "10.20.0.0/24" or "fd00:20::/64", with no host bits set')
    largest, smallest = _ROOM[subnet.version]
    if subnet.prefixlen > smallest:
        raise ValueError(f"has room for fewer than five containers; the smallest is a /{smallest}")
    if subnet.prefixlen < largest:
        raise ValueError(f"is larger than any private network; the largest is a /{largest}")
    return str(subnet)


def is_address(text: str) -> str:
    """The address as it is usually written. Raises ValueError for anything else."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def _one_of_a_family(texts: tuple[str, ...]) -> tuple[str, ...]:
    versions = [6 if ":" in text else 4 for text in texts]
    if len(versions) != len(set(versions)):
        raise ValueError("at most one of IPv4 and one of IPv6")
    return texts


SubnetText = Annotated[Text, pydantic.AfterValidator(_subnet)]
AddressText = Annotated[Text, pydantic.AfterValidator(is_address)]
OneOfAFamily = pydantic.AfterValidator(_one_of_a_family)


class NetworkTable(Section):
    """A network that containers of this app, or of several, share."""

    table: ClassVar[str] = "network.*"
    whole: ClassVar[Change] = Change.LIVE

    name: Name | None = setting(
        None,
        doc="The network's name on the host. Containers of all apps that name it so are in one network. "
        "Without it the network is the app's own, named APP_NAME.",
        example="backend",
    )
    external: bool = setting(
        False,
        doc="It must be there already: made by another app, or by `pycore network create`. It has the name of this "
        "table, or `name`, and what it is like is said there.",
        example=True,
    )
    subnets: Annotated[Many[SubnetText], OneOfAFamily] = setting(
        (),
        doc="The networks that addresses are taken from, at most one of IPv4 and one of IPv6. Without one of IPv4 a "
        "free /22 of 10.208.0.0/12 is found, and without one of IPv6 a /64 of fd00::/8 is made up, told from the "
        "host and the network's name.",
        example=["10.20.0.0/24", "fd00:20::/64"],
    )
    gateways: Annotated[Many[AddressText], OneOfAFamily] = setting(
        (),
        doc="Where what leaves the network goes first: with the driver bridge the host's own addresses in it. Without "
        "it the first address of each subnet.",
        example=["10.20.0.1"],
    )
    internal: bool = setting(False, doc="Without a way out, and without ports that the host publishes.", example=True)
    ipv6: bool = setting(
        True, doc="IPv6 beside IPv4, where the host has it; always where `subnets` has one of IPv6.", example=False
    )
    mtu: Annotated[int, pydantic.Field(ge=1280, le=65535)] | None = setting(
        None,
        doc="The largest packet in bytes; without it the kernel's 1500. A host on a tunnel needs less.",
        example=1400,
    )
    isolated: bool = setting(
        True,
        doc="Closed to other networks of this host. Those that are not isolated reach each other.",
        example=False,
    )
    labels: dict[Text, Text] = setting(
        {}, doc="Words for people and tools, kept as they were when the network was made.", example={"team": "shop"}
    )


@dataclass(frozen=True)
class Network:
    """A network of this host, which containers of one or several apps share."""

    name: str
    """On the host."""
    driver: str
    subnets: tuple[Subnet, ...]
    """IPv4 before IPv6; at least one."""
    gateways: tuple[str, ...]
    """One in each subnet, in their order."""
    directory: str
    """Of its record and leases, in the run dir."""
    bridge: str = ""
    """With the driver bridge: the device, at most 15 characters (IFNAMSIZ)."""
    internal: bool = False
    mtu: int = 0
    """0 leaves it to the kernel."""
    isolated: bool = True
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    options: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """What its driver's own section says: ``{"parent": "eth0", "mode": "bridge"}``."""

    def prefix_of(self, address: str) -> int:
        """The length of the prefix that an address has here."""
        version = 6 if ":" in address else 4
        return next(subnet.prefixlen for subnet in self.subnets if subnet.version == version)

    def record(self) -> str:
        """What is kept of it, as JSON."""
        return json.dumps(
            {
                "driver": self.driver,
                "subnets": [str(subnet) for subnet in self.subnets],
                "gateways": self.gateways,
                "internal": self.internal,
                "mtu": self.mtu,
                "isolated": self.isolated,
                "labels": dict(self.labels),
                "options": dict(self.options),
            }
        )


@lru_cache(maxsize=1024)
def network_of(name: str, directory: str, bridge: str, record: str) -> Network:
    """The inverse of :meth:`Network.record`, the very same for the same: a thousand containers are in one network.

    ``bridge`` counts with that driver alone. Raises ValueError where the record is something else.
    """
    try:
        values: dict[str, Any] = json.loads(record)
        return Network(
            name,
            str(values["driver"]),
            tuple(map(read_subnet, values["subnets"])),
            tuple(map(str, values["gateways"])),
            directory,
            bridge if values["driver"] == BRIDGE else "",
            bool(values["internal"]),
            int(values["mtu"]),
            bool(values["isolated"]),
            dict(values["labels"]),
            dict(values["options"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what is kept of a network: {error!r}") from None


def placed(host: Host, name: str, record: str) -> Network:
    """A network of this host, of what is kept of it."""
    return network_of(name, directory_of(host, name), bridge_of(host, name), record)


def recorded(host: Host, name: str) -> Network | None:
    """The network of that name, where it exists: containers are in it, or ``pycore network create`` has made it."""
    for path in (f"{directory_of(host, name)}/{RECORD}", kept_record(host, name)):
        try:
            return placed(host, name, host.look.read(path, _LARGE))
        except FileNotFoundError:
            continue
    return None


def all_recorded(host: Host) -> list[Network]:
    """All networks that exist, by name."""
    kept = (entry.removesuffix(".json") for entry in host.look.listdir(f"{host.data_dir}/networks"))
    names = {*host.look.listdir(f"{host.run_dir}/networks"), *kept}
    return [network for name in sorted(names) if (network := recorded(host, name))]


def kept_record(host: Host, name: str) -> str:
    """The path of the record of a network that was made by ``pycore network create``."""
    return f"{host.data_dir}/networks/{name}.json"


def directory_of(host: Host, name: str) -> str:
    """What is kept of a network while it is on the host."""
    return f"{host.run_dir}/networks/{name}"


def bridge_of(host: Host, name: str) -> str:
    """The bridge's name, at most 15 characters (IFNAMSIZ): readable at its start, unique by its end."""
    return _bridge(host.instance, name)


@lru_cache(maxsize=1024)
def _bridge(instance: str, name: str) -> str:
    return f"pc-{name[:5]}-{hashlib.sha256(f'{instance}/{name}'.encode()).hexdigest()[:6]}"


def host_name(app: App, word: str) -> str:
    """What the network of a table ``[network.WORD]`` is called on the host."""
    declared = table_of(app, word)
    return declared.name or (word if declared.external else f"{app.name}_{word}")


def table_of(app: App, word: str) -> NetworkTable:
    """What ``[network.WORD]`` says; ``default`` need not be there."""
    found = app.tables.get("network", {}).get(word, {}).get(NetworkTable)
    return found if isinstance(found, NetworkTable) else NetworkTable()


def driver_of(app: App, word: str) -> str:
    """The driver that ``[network.WORD]`` chooses."""
    return app.table_drivers.get("network", {}).get(word, BRIDGE)


def options_of(app: App, word: str) -> dict[str, str]:
    """What the section of the table's driver says, the rest of ``[network.WORD]``."""
    found: dict[str, str] = {}
    for kind, section in app.tables.get("network", {}).get(word, {}).items():
        if kind is not NetworkTable:
            found |= {name: str(value) for name, value in section.model_dump(exclude_none=True).items()}
    return found


@lru_cache(maxsize=1024)
def read_subnet(text: str) -> Subnet:
    """A subnet of its text, the very same for the same."""
    return ip_network(text)
