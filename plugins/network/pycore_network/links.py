"""rtnetlink requests for network devices, built with pyroute2's message classes; nothing is sent here.

pyroute2's own calls run an event loop each and wait for every answer, so only its messages are used. They are
imported late: the import takes 150 ms, which only a process that attaches containers should pay. To encode one
takes 0.1 to 0.3 ms, so what every container needs is encoded once, with marks where one differs from the next.
"""

from __future__ import annotations

import socket
import struct
from functools import cache, lru_cache
from typing import Any

Attributes = list[tuple[str, Any]]

LOOPBACK_INDEX = 1
"""What the kernel numbers ``lo`` in every network namespace."""
ETH0_INDEX = 100
"""What we ask the kernel to number a container's ``eth0``, so that nobody needs to look it up. The low numbers can be
taken: modules such as sit and ip_gre put a device of their own into every new namespace."""

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_CHANGE = 1 | 4
"""NLM_F_REQUEST | NLM_F_ACK"""
_EXCLUSIVE, _CREATE, _REPLACE = 0x200, 0x400, 0x100
_UP = {"flags": 1, "change": 1}
"""IFF_UP, and that no other flag is meant."""
_TABLE_MAIN, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1

_NAME, _MAC, _ADDRESS = "-name--of--one-", "6d:61:72:6b:65:64", "77.65.82.75"
"""Marks; the name has 15 characters, the most that one can have (IFNAMSIZ)."""
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


def mac_of(address: str) -> str:
    """A hardware address told from the IPv4 address, locally administered (IEEE 802, second bit).

    A neighbour's ARP entry thus stays right when an address goes from one container to the next.
    """
    return "0a:58:" + ":".join(f"{int(part):02x}" for part in address.split("."))


@lru_cache(maxsize=64)
def make_bridge(name: str, gateway: str) -> bytes:
    """Make a bridge and bring it up; one that is there already is fine.

    It has a hardware address of its own: else it takes the lowest of its ports', and changes with them.
    """
    attributes: Attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac_of(gateway)),
        ("IFLA_GROUP", group_of(name)),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
    ]
    return _request("ifinfmsg", _NEWLINK, _CHANGE | _CREATE, _UP, attributes)


def make_veth(address: str, peer: str, group: int, owner: int) -> bytes:
    """Make ``eth0``, up, in the namespace where this is sent, and its ``peer`` in that of the thread ``owner``."""
    marks = (_text(_NAME, peer), _hardware(_MAC, mac_of(address)), _number(_GROUP, group), _number(_OWNER, owner))
    return _fill(_veth(), *marks)


@cache
def _veth() -> bytes:
    other: Attributes = [("IFLA_IFNAME", _NAME), ("IFLA_GROUP", _GROUP), ("IFLA_NET_NS_PID", _OWNER)]
    data = {"attrs": [("VETH_INFO_PEER", {"index": 0, "flags": 0, "change": 0, "attrs": other})]}
    attributes: Attributes = [
        ("IFLA_IFNAME", "eth0"),
        ("IFLA_ADDRESS", _MAC),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
    ]
    return _request("ifinfmsg", _NEWLINK, _CHANGE | _CREATE | _EXCLUSIVE, {"index": ETH0_INDEX, **_UP}, attributes)


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


@lru_cache(maxsize=4)
def loopback_up() -> bytes:
    """Bring ``lo`` up; the kernel gives it 127.0.0.1 then."""
    return _request("ifinfmsg", _NEWLINK, _CHANGE, {"index": LOOPBACK_INDEX, **_UP}, [])


def add_address(index: int, address: str, prefix: int) -> bytes:
    """Give a device an IPv4 address; one that it has already is fine."""
    return _fill(_inet(index, prefix), (socket.inet_aton(_ADDRESS), socket.inet_aton(address)))


@lru_cache(maxsize=64)
def _inet(index: int, prefix: int) -> bytes:
    attributes: Attributes = [("IFA_LOCAL", _ADDRESS), ("IFA_ADDRESS", _ADDRESS)]
    fields = {"family": socket.AF_INET, "index": index, "prefixlen": prefix}
    return _request("ifaddrmsg", _NEWADDR, _CHANGE | _CREATE | _REPLACE, fields, attributes)


@lru_cache(maxsize=64)
def default_route(gateway: str) -> bytes:
    """Send all that has no better way through a gateway; the device is the one that reaches it."""
    fields = {"family": socket.AF_INET, "table": _TABLE_MAIN, "proto": _PROTOCOL_STATIC, "type": _UNICAST}
    return _request("rtmsg", _NEWROUTE, _CHANGE | _CREATE, fields, [("RTA_GATEWAY", gateway)])


def delete_link(name: str) -> bytes:
    """Delete a device."""
    return _request("ifinfmsg", _DELLINK, _CHANGE, {}, [("IFLA_IFNAME", name)])


def delete_group(group: int) -> bytes:
    """Delete all devices of a link group in one go: waiting for the kernel is paid once, not for each."""
    return _request("ifinfmsg", _DELLINK, _CHANGE, {}, [("IFLA_GROUP", group)])
