"""What an expression of a rule finds in a packet, and whether a match holds; None where nobody can know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pycore_network.hostfirewall.packet import Packet
from pycore_network.hostfirewall.values import NUMBERS, UNKNOWN, Elements, Value, among, flags

_PORT = 54321
"""A port that it may come from: of those that the kernel gives out for a while."""
_TRANSPORTS = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "ah", "esp", "comp", "gre")


class Absent(Exception):
    """The packet has no such part, so a rule that asks for it does not hold, whatever it asks."""


def holds(match: Mapping[str, Any], packet: Packet, named: Elements) -> bool | None:
    """Whether a ``match`` of a rule holds (libnftables-json(5))."""
    try:
        found = value(match["left"], packet)
    except Absent:
        return False
    operator, right = match["op"], match["right"]
    if operator in ("<", ">", "<=", ">="):
        return _compares(found, operator, right)
    if isinstance(found, frozenset) and isinstance(match["left"], dict) and "&" in match["left"]:
        answer: bool | None = found == flags(right)  # those of a mask that are set: these, and no other
    else:
        answer = among(found, right, named)
    return answer if answer is None or operator != "!=" else not answer


def value(expression: Any, packet: Packet) -> Value:
    """What an expression finds. Raises Absent."""
    if not isinstance(expression, dict):
        return UNKNOWN
    kind, about = next(iter(cast("dict[str, Any]", expression).items()))
    if kind == "concat":
        return tuple(value(each, packet) for each in about)
    if kind == "&":
        return _masked(about, packet)
    reader = _READERS.get(kind)
    return reader(about, packet) if reader else UNKNOWN


def _compares(found: Value, operator: str, right: Any) -> bool | None:
    if not isinstance(found, int) or not isinstance(right, int):
        return None
    return {"<": found < right, ">": found > right, "<=": found <= right, ">=": found >= right}[operator]


def _masked(operands: Sequence[Any], packet: Packet) -> Value:
    found, mask = value(operands[0], packet), operands[1]
    if isinstance(found, frozenset):
        return found & flags(mask)
    if isinstance(found, int) and isinstance(mask, int):
        return found & mask
    return UNKNOWN


def _meta(about: Mapping[str, Any], packet: Packet) -> Value:
    found: dict[str, Value] = {
        "iifname": packet.incoming,
        "iif": packet.incoming,
        "oifname": packet.outgoing,
        "oif": packet.outgoing,
        "l4proto": packet.protocol,
        "nfproto": f"ipv{packet.version}",
        "protocol": "ip" if packet.version == 4 else "ip6",
        "mark": UNKNOWN if packet.mark is None else packet.mark,
        "pkttype": "host",
    }
    return found.get(about["key"], UNKNOWN)


def _ct(about: Mapping[str, Any], packet: Packet) -> Value:
    """What is known of its connection: it is a new one, and perhaps one to a published port."""
    key = about["key"]
    if key == "state":
        return frozenset(("new",))
    if key == "status":
        return frozenset(("dnat",)) if packet.translated else frozenset[str]()
    if key in ("mark", "direction"):
        return 0 if key == "mark" else "original"
    return UNKNOWN


def _fib(about: Mapping[str, Any], packet: Packet) -> Value:
    """What the routes say of an address: that there is a way back to its source, and whose its destination is."""
    words, result = about.get("flags", ()), about.get("result")
    if "daddr" in words and result == "type":
        return "local" if packet.local else "unicast"
    if "saddr" in words:
        return "unicast" if result == "type" else True
    return UNKNOWN


def _payload(about: Mapping[str, Any], packet: Packet) -> Value:
    protocol, name = about.get("protocol"), about.get("field")
    if protocol in ("ip", "ip6"):
        return _network_header(packet, protocol, str(name))
    if protocol == "th" or protocol == packet.protocol:
        found: dict[object, Value] = {"dport": packet.port, "sport": _PORT, "flags": frozenset(("syn",))}
        return found.get(name, UNKNOWN)
    if protocol in _TRANSPORTS or protocol in ("arp", "vlan"):
        raise Absent
    return UNKNOWN


def _network_header(packet: Packet, protocol: str, name: str) -> Value:
    if (packet.version == 4) != (protocol == "ip"):
        raise Absent
    if name == "saddr":
        return packet.source
    if name == "daddr":
        return packet.destination
    if name in ("protocol", "nexthdr"):
        return packet.protocol if packet.protocol in NUMBERS else UNKNOWN
    return packet.version if name == "version" else UNKNOWN


def _not_there(about: Mapping[str, Any], packet: Packet) -> Value:
    """Extension headers of IPv6 and options of IPv4, which ordinary packets have none of."""
    del about, packet
    raise Absent


_READERS = {
    "meta": _meta,
    "ct": _ct,
    "fib": _fib,
    "payload": _payload,
    "exthdr": _not_there,
    "ip option": _not_there,
}
"""What can be told; ``socket``, ``osf``, ``numgen``, ``jhash``, options of TCP and the like cannot."""
