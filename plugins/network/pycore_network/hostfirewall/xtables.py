"""Matches and targets of iptables, as iptables-nft puts them into rules: read from the kernel's own structures.

The layouts are those of ``linux/netfilter/xt_*.h``, in this machine's byte order. What is not in the table below is
known by its name alone, and may hold or not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from pycore_network.hostfirewall.packet import Packet, Somewhere

_NEW, _DNAT = 1 << 3, 1 << 7
"""Bits of a connection's state: what a first packet has, and one whose destination was translated."""
_STATE_ONLY = 1
_UNICAST, _LOCAL = 1 << 1, 1 << 2
_SYN, _PORTS = 2, 0xFFFF

CONTINUES = frozenset(
    ("LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "TRACE", "AUDIT", "CLASSIFY", "DSCP", "TOS",
     "TTL", "HL", "SET", "SECMARK", "CONNSECMARK", "CHECKSUM", "TEE", "RATEEST", "IDLETIMER", "LED", "TCPOPTSTRIP")
)  # fmt: skip
"""Targets after which the next rule comes."""


def holds(about: Mapping[str, Any] | None, packet: Packet) -> bool | None:
    """Whether a match holds; None where nobody can know."""
    if not about or "info" not in about:
        return None
    reader = _MATCHES.get(about["name"])
    if reader is None:
        return None
    try:
        return reader(bytes.fromhex(about["info"]), int(about["revision"]), packet)
    except struct.error:
        return None


def marked(about: Mapping[str, Any], packet: Packet) -> int | None:
    """The mark of a packet after a target that sets it: ``struct xt_mark_tginfo2``; None where nobody can know."""
    if about["name"] != "MARK" or packet.mark is None or about.get("revision") != 2:
        return None
    mark, mask = struct.unpack_from("=II", bytes.fromhex(about["info"]))
    return int((packet.mark & ~mask) ^ mark)


def _conntrack(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_conntrack_mtinfo2`` and ``3``; ``1`` has states in one byte, with the same flags before them."""
    if revision not in (1, 2, 3):
        return None
    asked, inverted, states = struct.unpack_from("=HHB" if revision == 1 else "=HHH", info, 146)
    if not asked & _STATE_ONLY:
        return None
    found = bool(states & (_NEW | (_DNAT if packet.translated else 0))) != bool(inverted & _STATE_ONLY)
    return found if asked == _STATE_ONLY or not found else None


def _state(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_state_info``."""
    del revision, packet
    return bool(struct.unpack_from("=I", info)[0] & _NEW)


def _addrtype(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_addrtype_info`` and ``_v1``: kinds of addresses as bits, 0 for any."""
    source, destination, first, second = struct.unpack_from("=HHII", info + bytes(4))
    not_source, not_destination = (bool(first & 1), bool(first & 2)) if revision else (bool(first), bool(second))
    where = _LOCAL if packet.local else _UNICAST
    if source and bool(source & _UNICAST) == not_source:
        return False
    return not destination or bool(destination & where) != not_destination


def _multiport(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_multiport_v1``: whose ports, how many, the ports, whether a range begins with each, not."""
    if revision != 1:
        return None
    whose, count, *rest = struct.unpack_from("=BB15H15BB", info)
    ports, begins, inverted = rest[:15], rest[15:30], bool(rest[30])
    if whose == 0:
        return None
    found, index = False, 0
    while index < count:
        last = ports[index + 1] if begins[index] else ports[index]
        found |= ports[index] <= packet.port <= last
        index += 2 if begins[index] else 1
    if whose == 2 and not found:
        return None
    return found != inverted


def _tcp(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_tcp``: ports it is from and to, an option, flags that are looked at and that are set, what is not."""
    del revision
    sources, ports = struct.unpack_from("=HH", info), struct.unpack_from("=HH", info, 4)
    option, mask, wanted, inverted = info[8:12]
    if packet.protocol != "tcp" or not _within(ports, packet.port, inverted & 2):
        return False
    if mask and ((_SYN & mask) == wanted) == bool(inverted & 4):
        return False
    return True if sources == (0, _PORTS) and not option else None


def _udp(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_udp``: ports it is from and to, what is not."""
    del revision
    sources, ports = struct.unpack_from("=HH", info), struct.unpack_from("=HH", info, 4)
    if packet.protocol != "udp" or not _within(ports, packet.port, info[8] & 2):
        return False
    return True if sources == (0, _PORTS) else None


def _within(ports: tuple[int, ...], port: int, inverted: int) -> bool:
    return (ports[0] <= port <= ports[1]) != bool(inverted)


def _pkttype(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_pkttype_info``: a kind, of which 0 is a packet for this host alone, not."""
    del revision, packet
    kind, inverted = struct.unpack_from("=ii", info)
    return bool(kind) == bool(inverted)


def _mark(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_mark_mtinfo1``: mark, mask, not."""
    if revision != 1 or packet.mark is None:
        return None
    mark, mask, inverted = struct.unpack_from("=IIB", info)
    return bool((packet.mark & mask) == mark) != bool(inverted)


def _iprange(info: bytes, revision: int, packet: Packet) -> bool | None:
    """``struct xt_iprange_mtinfo``: source from and to, destination from and to, what is looked at, and what is not."""
    if revision != 1:
        return None
    asked = info[64]
    for bit, place, address in ((1, 0, packet.source), (2, 32, packet.destination)):
        if asked & bit:
            size = 4 if packet.version == 4 else 16
            first, last = info[place : place + size], info[place + 16 : place + 16 + size]
            within = not isinstance(address, Somewhere) and ip_address(first) <= address <= ip_address(last)  # type: ignore[operator]
            if within == bool(asked & bit << 4):
                return False
    return True


def _always(info: bytes, revision: int, packet: Packet) -> bool | None:
    """What says something to people, or is about how often: one packet now and then is within any limit."""
    del info, revision, packet
    return True


def _never(info: bytes, revision: int, packet: Packet) -> bool | None:
    """Of another protocol, or of a header that ordinary packets do not have."""
    del info, revision, packet
    return False


_MATCHES: Mapping[str, Callable[[bytes, int, Packet], bool | None]] = {
    "conntrack": _conntrack,
    "state": _state,
    "addrtype": _addrtype,
    "multiport": _multiport,
    "tcp": _tcp,
    "udp": _udp,
    "pkttype": _pkttype,
    "mark": _mark,
    "iprange": _iprange,
    "comment": _always,
    "limit": _always,
    "icmp": _never,
    "icmp6": _never,
    "rt": _never,
    "ah": _never,
    "esp": _never,
    "frag": _never,
    "hbh": _never,
    "dst": _never,
}
