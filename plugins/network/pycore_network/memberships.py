"""Which networks a container is in, and as what: the field ``networks``, and each of them as a value.

A device keeps its name for as long as the container is in that network, whatever else comes and goes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import Host
from pycore.spec import App, Change, Container, Fields, Many, Name, Section, Text, setting

from pycore_network import links
from pycore_network.addresses import claim_device, find_addresses, holder_of, lease_of, leased
from pycore_network.finding import PLACE, existing, find_network
from pycore_network.networks import DEFAULT, AddressText, Network, OneOfAFamily, host_name

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST = len(_DIGITS)
"""Networks of one container: the last character of a device's name on the host says which."""


def _mac(text: str) -> str:
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ValueError('must be a hardware address such as "02:42:ac:11:00:02"')
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError("is the address of a group, which no device can have")
    return mac


def _alias(text: str) -> str:
    if not text or len(text) > 253 or any(char.isspace() or char in '#/"\\' for char in text):
        raise ValueError("must be a name such as db or db.example.org")
    return text


class Attachment(Fields):
    """How a container is in one of its networks."""

    aliases: Many[Annotated[Text, pydantic.AfterValidator(_alias)]] = setting(
        (), doc="More names for it there.", change=Change.LIVE, example=["db"], flags=("--network-alias",)
    )
    addresses: Annotated[Many[AddressText], OneOfAFamily] = setting(
        (),
        doc="Its addresses, at most one of IPv4 and one of IPv6; free ones are found without.",
        change=Change.LIVE,
        example=["10.20.0.7"],
        flags=("--ip", "--ip6"),
    )
    mac: Annotated[Text, pydantic.AfterValidator(_mac)] | None = setting(
        None,
        doc="Its hardware address; told from its address without.",
        change=Change.LIVE,
        example="02:42:ac:11:00:02",
        flags=("--mac-address",),
    )


class Networks(Section):
    """Which networks a container is in."""

    table: ClassVar[str] = "container.*.network"

    networks: (
        Annotated[Many[Name], pydantic.Field(min_length=1, max_length=_MOST)]
        | Annotated[dict[Name, Attachment], pydantic.Field(min_length=1, max_length=_MOST)]
    ) = setting(
        (DEFAULT,),
        doc="The networks it is in: tables [network.NAME]; `default` need not be declared. The first is eth0, the "
        "next eth1 and so on; the way out is through the first that is not internal. As a table, each says how the "
        "container is in it: `aliases`, `addresses`, `mac`.",
        change=Change.LIVE,
        example=["front", "back"],
    )

    def attachments(self) -> Mapping[str, Attachment]:
        """Network, by the name of its table, to how the container is in it."""
        if isinstance(self.networks, tuple):
            return dict.fromkeys(self.networks, Attachment())
        return self.networks

    @classmethod
    def of_word(cls, word: str) -> Mapping[str, Any] | None:
        """``network = "back"`` is a network of that name."""
        return {"networks": [word]} if ":" not in word else None


@dataclass(frozen=True)
class Membership:
    """A container in one of its networks."""

    device: str
    """In the container: ``eth0``."""
    network: Network
    addresses: tuple[str, ...]
    """One in each subnet of the network, in their order, without a prefix."""
    aliases: tuple[str, ...]
    mac: str
    gateway: bool
    """Whether the container's default route leads through it."""
    peer: str
    """The host's end of it, where its driver makes one."""

    @property
    def way_out(self) -> tuple[str, ...]:
        """The gateways of its default routes; a device that sends packets rather than frames needs none."""
        if self.network.options.get("mode", "").startswith("l3"):
            return tuple("::" if ":" in gateway else "0.0.0.0" for gateway in self.network.gateways)
        return self.network.gateways

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Its addresses, each with its prefix: ``10.208.0.7/22``."""
        return tuple(f"{address}/{self.network.prefix_of(address)}" for address in self.addresses)


_last: tuple[Container, object, tuple[Membership, ...]] | None = None
"""The container and the claims of the plan that were asked about last, and the answer: one value, for any thread."""


def memberships(container: Container, host: Host, driver: str = "") -> tuple[Membership, ...]:
    """The networks a container is in, in the order of the spec, with what it has there or is to have.

    With ``driver`` only those of networks of that driver. Empty where its own network driver knows no networks. Puts
    problems on the host, and claims what it picks. Raises Conflict where nothing is left to be picked.
    """
    return tuple(each for each in _all_memberships(container, host) if driver in ("", each.network.driver))


def _all_memberships(container: Container, host: Host) -> tuple[Membership, ...]:
    """Found once for a container of a plan, though each phase of each plugin asks for them: what was claimed for it
    does not change any more, and its problems have been put on the host.
    """
    global _last
    last = _last
    if last and last[0] is container and last[1] is host.claims:
        return last[2]
    found = _find_memberships(container, host)
    _last = container, host.claims, found
    return found


def _find_memberships(container: Container, host: Host) -> tuple[Membership, ...]:
    if Networks not in container:
        return ()
    attachments = container[Networks].attachments()
    networks = {word: find_network(host, container.app, word) for word in attachments}
    devices = _devices(host, container, networks.values())
    way_out = _way_out(networks.values())
    return tuple(
        _membership(host, container, word, network, attachments[word], devices[network.name], way_out)
        for word, network in networks.items()
    )


def known_memberships(container: Container, host: Host) -> tuple[Membership, ...]:
    """Those in which a container has addresses now; nothing is claimed."""
    if Networks not in container:
        return ()
    found: list[tuple[Network, Attachment, str, tuple[str, ...]]] = []
    for word, attachment in container[Networks].attachments().items():
        network = existing(host, container.app, word)
        device, addresses = leased(host, network, container, attachment.addresses) if network else ("", ())
        if network and device:
            found.append((network, attachment, device, addresses))
    way_out = _way_out(network for network, _, _, _ in found)
    return tuple(_member(container, *each, way_out) for each in found)


def _way_out(networks: Iterable[Network]) -> Network | None:
    """The network that the default route leads through: the first that is not internal."""
    return next((network for network in networks if not network.internal), None)


def _membership(
    host: Host,
    container: Container,
    word: str,
    network: Network,
    attachment: Attachment,
    device: str,
    way_out: Network | None,
) -> Membership:
    for address in attachment.addresses:
        complaint = _complaint(host, container, network, address)
        if complaint:
            _object(host, word, complaint)
    addresses = find_addresses(host, network, container, attachment.addresses, _reserved(host, container))
    return _member(container, network, attachment, device, addresses, way_out)


def _member(
    container: Container,
    network: Network,
    attachment: Attachment,
    device: str,
    addresses: tuple[str, ...],
    way_out: Network | None,
) -> Membership:
    mac, peer = attachment.mac or links.mac_of(addresses[0]), _peer(container, device)
    return Membership(device, network, addresses, attachment.aliases, mac, network is way_out, peer)


def _peer(container: Container, device: str) -> str:
    """The host's end of a veth pair, at most 15 characters (IFNAMSIZ): the last one tells which of its devices."""
    return f"pc{container.id[:12]}{_DIGITS[int(device.removeprefix('eth'))]}"


def _devices(host: Host, container: Container, networks: Iterable[Network]) -> dict[str, str]:
    """Network, by its name on the host, to device: those that there are stay, others get the first names free."""
    found: dict[str, str] = {}
    for network in networks:
        lease = lease_of(host, network, container)
        found[network.name] = lease[0] if lease else ""
    for network in networks:
        if not found[network.name]:
            device = next(name for number in range(_MOST) if (name := f"eth{number}") not in found.values())
            found[network.name] = device
            claim_device(host, network, container, device)
    return found


def _complaint(host: Host, container: Container, network: Network, address: str) -> str:
    """Why a container cannot have an address that its spec names; empty where it can."""
    subnet = next((each for each in network.subnets if each.version == ip_address(address).version), None)
    if subnet is None:
        return f"{address} is of a family that the network {network.name!r} does not have"
    if ip_address(address) not in subnet or ip_address(address) in (subnet[0], subnet[-1]):
        return f"{address} is no address of a container in {subnet}, the subnet of the network {network.name!r}"
    if address in network.gateways:
        return f"{address} is the gateway of the network {network.name!r}"
    holder = holder_of(host, network, address)
    return f"{address} is the address of {holder}" if holder and not _lets_go(holder, container, network) else ""


def _lets_go(holder: str, container: Container, network: Network) -> bool:
    """Whether who has an address now does not need it any more: what this container was, or one of its app that goes,
    or gets another address by this very change.
    """
    app, _, name = holder.partition("/")
    if holder == container.full_name:
        return True
    if app != container.app.name or container.app.alone:
        return False
    return name not in container.app.containers or bool(_fixed(container.app, name, network))


def _fixed(app: App, name: str, network: Network) -> tuple[str, ...]:
    """The addresses that the spec names for a container in a network."""
    container = app.containers[name]
    if Networks not in container:
        return ()
    return tuple(
        address
        for word, attachment in container[Networks].attachments().items()
        if host_name(app, word) == network.name
        for address in attachment.addresses
    )


def _reserved(host: Host, container: Container) -> Collection[str]:
    """The addresses that the app's spec names: nobody else finds them free."""
    kind = f"addresses of {container.app.name}"
    if kind not in host.claims:
        containers = (each for each in container.app.containers.values() if Networks in each)
        attachments = (attachment for each in containers for attachment in each[Networks].attachments().values())
        host.claims[kind] = {address: "" for attachment in attachments for address in attachment.addresses}
    return host.claims[kind]


def _object(host: Host, word: str, message: str) -> None:
    host.complain(Problem((*PLACE, word, "addresses"), message))
