"""Which networks a container is in, and as what: the field ``networks``, and each of them as a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pydantic
from pycore.spec import Change, Fields, Many, Name, Section, Text, setting

from pycore_network.networks import DEFAULT, AddressText, Network, OneOfAFamily

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
_MOST = 32
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
    host_device: str
    """The host's end of it, where there is one."""
