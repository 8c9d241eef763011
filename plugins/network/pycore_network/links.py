"""rtnetlink requests for network devices, built with pyroute2's message classes; nothing is sent here.

pyroute2's own calls run an event loop each and wait for every answer, so only its messages are used. They are
imported late: the import takes 150 ms, which only a process that attaches containers should pay. To encode one
takes 0.1 to 0.3 ms, so what every container needs is encoded once, with marks where one differs from the next.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from ipaddress import ip_address
from typing import Any

Attributes = list[tuple[str, Any]]

LOOPBACK_INDEX = 1
"""What the kernel numbers ``lo`` in every network namespace."""
ANYONE = ("0.0.0.0", "::")
"""In the place of a gateway: whatever is sent out of the device gets there."""
_FIRST_INDEX = 100
"""What we ask the kernel to number a container's ``eth0``, so that nobody needs to look it up. The low numbers can be
taken: modules such as sit and ip_gre put a device of their own into every new namespace."""

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 24, 25
_CHANGE = 1 | 4
"""NLM_F_REQUEST | NLM_F_ACK"""
_EXCLUSIVE, _CREATE, _REPLACE = 0x200, 0x400, 0x100
_UP = {"flags": 1, "change": 1}
"""IFF_UP, and that no other flag is meant."""
_TABLE_MAIN, _PROTOCOL_STATIC, _UNICAST, _SCOPE_LINK = 254, 4, 1, 253
_TABLE_LOCAL, _LOCAL, _LAST = 255, 2, 4096
"""RT_TABLE_LOCAL, RTN_LOCAL, and a metric behind all that the kernel makes itself."""
_NODAD = 2
"""IFA_F_NODAD: nobody else is asked whether they have the address, which takes a second; leases see to it."""
_GEN_NONE = 1
"""IN6_ADDR_GEN_MODE_NONE: no address of the device's own making."""

_NAME, _PEER, _MAC = "-name--of--one-", "-name--of-peer-", "6d:61:72:6b:65:64"
"""Marks; a name has 15 characters, the most that one can have (IFNAMSIZ)."""
_ADDRESSES = {4: "77.65.82.75", 6: "6d61:726b:6164:6472:6573:7300:6d61:726b"}
_GROUP, _OWNER, _MASTER = 0x67726F75, 0x6F776E65, 0x6D617374


def _text(mark: str, name: str) -> tuple[bytes, bytes]:
    return mark.encode(), name.encode().ljust(len(mark), b"\0")


def _number(mark: int, number: int) -> tuple[bytes, bytes]:
    return struct.pack("=I", mark), struct.pack("=I", number)


def _hardware(mark: str, mac: str) -> tuple[bytes, bytes]:
    return bytes.fromhex(mark.replace(":", "")), bytes.fromhex(mac.replace(":", ""))


def _fill(message: bytes, *marks: tuple[bytes, bytes]) -> bytes:
    for mark, value in marks:
        message = message.replace(mark, value)
    return message


def _request(module: str, kind: int, flags: int, fields: dict[str, Any], attributes: Attributes) -> bytes:
    from importlib import import_module

    message = getattr(import_module(f"pyroute2.netlink.rtnl.{module}"), module)()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message["header"]["type"], message["header"]["flags"] = kind, flags
    message.encode()
    return bytes(message.data)


def group_of(bridge: str) -> int:
    """The link group that a network's devices form, from the hash at the end of the bridge's name.

    Far above the numbers that people give to groups of their own.
    """
    return 0x70000000 | int(bridge[-6:], 16)


def index_of(device: str) -> int:
    """What the kernel is asked to number a container's ``eth0``, ``eth1`` and so on."""
    return _FIRST_INDEX + int(device.removeprefix("eth"))


@lru_cache(maxsize=4096)
def mac_of(address: str) -> str:
    """A hardware address told from the IP address, locally administered (IEEE 802, second bit).

    A neighbour's ARP entry thus stays right when an address goes from one container to the next.
    """
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in ip_address(address).packed[-4:])


@lru_cache(maxsize=64)
def make_bridge(name: str, mac: str, mtu: int) -> bytes:
    """Make a bridge and bring it up; one that is there already is fine. 0 leaves the MTU to the kernel.

    It has a hardware address of its own: else it takes the lowest of its ports', and changes with them. Who listens to
    which group it does not ask: what is sent to one goes to all, whatever a container says of it.
    """
    kind = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_MCAST_SNOOPING", 0)]})]}
    attributes: Attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_GROUP", group_of(name)),
        ("IFLA_LINKINFO", kind),
        *_mtu(mtu),
    ]
    return _request("ifinfmsg", _NEWLINK, _CHANGE | _CREATE, _UP, attributes)


def make_veth(device: str, mac: str, mtu: int, peer: str, group: int, owner: int) -> bytes:
    """Make ``device``, up, in the namespace where this is sent, and its ``peer`` in that of the thread ``owner``."""
    marks = (
        _text(_NAME, device), _text(_PEER, peer), _hardware(_MAC, mac), _number(_GROUP, group), _number(_OWNER, owner)
    )  # fmt: skip
    return _fill(_veth(index_of(device), mtu), *marks)


@lru_cache(maxsize=64)
def _veth(index: int, mtu: int) -> bytes:
    other: Attributes = [
        ("IFLA_IFNAME", _PEER), ("IFLA_GROUP", _GROUP), ("IFLA_NET_NS_PID", _OWNER), *_mtu(mtu)
    ]  # fmt: skip
    data = {"attrs": [("VETH_INFO_PEER", {"index": 0, "flags": 0, "change": 0, "attrs": other})]}
    attributes: Attributes = [
        ("IFLA_IFNAME", _NAME),
        ("IFLA_ADDRESS", _MAC),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
        *_mtu(mtu),
    ]
    return _request("ifinfmsg", _NEWLINK, _CHANGE | _CREATE | _EXCLUSIVE, {"index": index, **_UP}, attributes)


_MODES: Mapping[str, tuple[str, Mapping[str, str | int]]] = {
    "macvlan": (
        "IFLA_MACVLAN_MODE",
        {mode: mode for mode in ("private", "vepa", "bridge", "passthru")},
    ),
    "ipvlan": ("IFLA_IPVLAN_MODE", {"l2": 0, "l3": 1, "l3s": 2}),
}
"""Kind of device to the attribute that says how several live on one, and its values (linux/if_link.h)."""


def make_child(device: str, kind: str, mode: str, parent: int, owner: int, mac: str, mtu: int) -> bytes:
    """Make a device that lives on another, of the namespace where this is sent: macvlan, ipvlan.

    It is in the namespace of the process ``owner``, and not up yet. ``parent`` is the other's index; without ``mac``
    it has the other's, without ``mtu`` as well.
    """
    word, values = _MODES[kind]
    data = {"attrs": [(word, values[mode])]}
    attributes: Attributes = [
        ("IFLA_IFNAME", device),
        ("IFLA_LINK", parent),
        ("IFLA_NET_NS_PID", owner),
        *([("IFLA_ADDRESS", mac)] if mac else []),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", data)]}),
        *_mtu(mtu),
    ]
    fields = {"index": index_of(device)}
    return _request("ifinfmsg", _NEWLINK, _CHANGE | _CREATE | _EXCLUSIVE, fields, attributes)


@lru_cache(maxsize=64)
def bring_up(index: int) -> bytes:
    """Bring a device up; with ``LOOPBACK_INDEX`` the kernel gives it 127.0.0.1 then."""
    return _request("ifinfmsg", _NEWLINK, _CHANGE, {"index": index, **_UP}, [])


def _mtu(mtu: int) -> Attributes:
    return [("IFLA_MTU", mtu)] if mtu else []


@lru_cache(maxsize=64)
def without_ipv6(index: int) -> bytes:
    """Let a device make no IPv6 address for itself; sent before it has a carrier, there is none."""
    data = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _GEN_NONE)]})]}
    return _request("ifinfmsg", _NEWLINK, _CHANGE, {"index": index}, [("IFLA_AF_SPEC", data)])


def join_bridge(name: str, bridge_index: int) -> bytes:
    """Make a device a port of a bridge and bring it up."""
    return _fill(_port(), _text(_NAME, name), _number(_MASTER, bridge_index))


@cache
def _port() -> bytes:
    return _request("ifinfmsg", _NEWLINK, _CHANGE, _UP, [("IFLA_IFNAME", _NAME), ("IFLA_MASTER", _MASTER)])


def reflect(name: str) -> bytes:
    """Let a port of a bridge send a frame back to where it came from (hairpin mode; for a device that is a port).

    With br_netfilter the bridge itself redirects what a container sends to its own published port.
    """
    return _fill(_hairpin(), _text(_NAME, name))


@cache
def _hairpin() -> bytes:
    data = {"attrs": [("IFLA_BRPORT_MODE", 1)]}
    info = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", data)]}
    return _request("ifinfmsg", _NEWLINK, _CHANGE, {}, [("IFLA_IFNAME", _NAME), ("IFLA_LINKINFO", info)])


def add_address(index: int, address: str, prefix: int) -> bytes:
    """Give a device an address; one that it has already is fine."""
    version = 6 if ":" in address else 4
    mark = ip_address(_ADDRESSES[version]).packed
    return _fill(_inet(version, index, prefix), (mark, ip_address(address).packed))


@lru_cache(maxsize=256)
def _inet(version: int, index: int, prefix: int) -> bytes:
    mark = _ADDRESSES[version]
    attributes: Attributes = [("IFA_LOCAL", mark), ("IFA_ADDRESS", mark)]
    fields: dict[str, Any] = {"family": _FAMILIES[version], "index": index, "prefixlen": prefix}
    if version == 6:
        fields["flags"] = _NODAD
    return _request("ifaddrmsg", _NEWADDR, _CHANGE | _CREATE | _REPLACE, fields, attributes)


def settle(device: str, addresses: Sequence[str], link_local: str = "") -> list[bytes]:
    """What makes a new device of use in its namespace: addresses with their prefixes, and ``lo`` up beside it.

    ``link_local`` is what it would give itself beside an address of IPv6, where nobody else can have it: to ask for
    that, as the kernel does, takes a second, and a frame to each other device of the network.
    """
    index, six = index_of(device), any(":" in address for address in addresses)
    own = (f"{link_local}/64",) if six and link_local else ()
    pairs = (address.split("/") for address in (*own, *addresses))
    given = [add_address(index, address, int(prefix)) for address, prefix in pairs]
    quiet = [without_ipv6(index)] if own or not six else []
    return [*quiet, bring_up(LOOPBACK_INDEX), *given]


@lru_cache(maxsize=256)
def default_route(gateway: str, index: int) -> bytes:
    """Send all that has no better way through a gateway that a device reaches; :data:`ANYONE` is none at all."""
    return _request("rtmsg", _NEWROUTE, _CHANGE | _CREATE, _route(gateway), _way(gateway, index))


def answer_loopback6(index: int) -> bytes:
    """Let answers that come by a device find back to ``::1``, as route_localnet does for IPv4.

    A loopback address is looked for on the very device (strict routing in net/ipv6/route.c); what is sent to ``::1``
    from elsewhere is refused before that.
    """
    fields = {
        "family": socket.AF_INET6, "dst_len": 128, "table": _TABLE_LOCAL, "proto": _PROTOCOL_STATIC, "type": _LOCAL,
    }  # fmt: skip
    attributes: Attributes = [("RTA_DST", "::1"), ("RTA_OIF", index), ("RTA_PRIORITY", _LAST)]
    return _request("rtmsg", _NEWROUTE, _CHANGE | _CREATE, fields, attributes)


@lru_cache(maxsize=256)
def delete_default_route(gateway: str, index: int) -> bytes:
    """The inverse of :func:`default_route`."""
    return _request("rtmsg", _DELROUTE, _CHANGE, _route(gateway), _way(gateway, index))


def _route(gateway: str) -> dict[str, Any]:
    family = _FAMILIES[6 if ":" in gateway else 4]
    scope = _SCOPE_LINK if gateway in ANYONE else 0
    return {"family": family, "table": _TABLE_MAIN, "proto": _PROTOCOL_STATIC, "type": _UNICAST, "scope": scope}


def _way(gateway: str, index: int) -> Attributes:
    through: Attributes = [] if gateway in ANYONE else [("RTA_GATEWAY", gateway)]
    return [*through, ("RTA_OIF", index)]


_FAMILIES: Mapping[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


def delete_link(name: str) -> bytes:
    """Delete a device."""
    return _request("ifinfmsg", _DELLINK, _CHANGE, {}, [("IFLA_IFNAME", name)])


def delete_group(group: int) -> bytes:
    """Delete all devices of a link group in one go: waiting for the kernel is paid once, not for each."""
    return _request("ifinfmsg", _DELLINK, _CHANGE, {}, [("IFLA_GROUP", group)])
