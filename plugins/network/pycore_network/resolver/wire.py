"""DNS messages: what a query asks, and answers to it (RFC 1035, RFC 6891). Any bytes may come; none raises.

Only the resolver's own thread imports this, at the first query: dnspython takes some 70 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.reversename
import dns.rrset
from dns.rdatatype import RdataType

_HEADER = 12
_PLAIN = 512
"""The longest answer in a datagram for who says nothing of it (RFC 1035, 2.3.4)."""
LONGEST = 4096
"""The longest in a datagram at all, and what we say we take (RFC 6891, 6.2.5); the way leads over no network."""
_STREAM = 65535
_FAILURES = (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR)


@dataclass(frozen=True)
class Query:
    """One question that can be answered."""

    wire: bytes
    """As it came."""
    name: str
    """In small letters, without the final dot; the root is an empty string."""
    type: int
    question: bytes
    """The question section as it came."""
    room: int
    """Bytes that an answer may have."""
    message: dns.message.Message

    @property
    def wants_addresses(self) -> bool:
        """Whether it asks for IPv4 or IPv6 addresses."""
        return self.type in (RdataType.A, RdataType.AAAA)

    def wanted(self, addresses: Iterable[str]) -> list[str]:
        """Those of the addresses that it asks for."""
        kinds = {RdataType.A: (False,), RdataType.AAAA: (True,), RdataType.ANY: (False, True)}
        return [address for address in addresses if (":" in address) in kinds.get(RdataType(self.type), ())]


@dataclass(frozen=True)
class Learned:
    """What an answer says of the name that was asked for."""

    addresses: tuple[str, ...]
    ttl: int
    """Seconds, the least of all records that lead there."""


def read(wire: bytes, *, stream: bool) -> Query | bytes | None:
    """What is asked; or what is to be said to what cannot be answered; or None, where nothing is to be said."""
    if len(wire) < _HEADER or wire[2] & 0x80:  # an answer: who answers answers could be kept busy by two of us
        return None
    if wire[2] & 0x78:  # before the rest is looked at: an update, say, has other sections
        return _error(wire, dns.rcode.NOTIMP)
    try:
        message = dns.message.from_wire(wire)
    except Exception:  # whatever it is that dnspython makes of what anybody sends
        return _error(wire, dns.rcode.FORMERR)
    end = _question_end(wire)
    if len(message.question) != 1 or not end:
        return _error(wire, dns.rcode.FORMERR)
    if message.edns > 0:
        return _bare(message, dns.rcode.BADVERS)
    asked = message.question[0]
    if asked.rdclass != dns.rdataclass.IN:
        return _bare(message, dns.rcode.REFUSED)
    room = _STREAM if stream else min(max(message.payload, _PLAIN), LONGEST)
    name = asked.name.to_text(omit_final_dot=True).lower()
    return Query(wire, "" if name == "." else name, int(asked.rdtype), wire[_HEADER:end], room, message)


def _question_end(wire: bytes) -> int:
    """Where the one question ends; 0 where its name is not written out, as it must be."""
    at = _HEADER
    while at < len(wire) and wire[at]:
        if wire[at] & 0xC0:
            return 0
        at += wire[at] + 1
    return at + 5 if at + 5 <= len(wire) else 0


def _error(wire: bytes, code: int) -> bytes:
    """A header alone: the rest made no sense."""
    flags = 0x8000 | (wire[2] & 0x79) << 8 | 0x80 | code
    return wire[:2] + flags.to_bytes(2, "big") + bytes(8)


def _bare(message: dns.message.Message, code: dns.rcode.Rcode) -> bytes:
    response = dns.message.make_response(message, recursion_available=True, our_payload=LONGEST)
    response.set_rcode(code)
    return response.to_wire(max_size=_STREAM)


def failed(query: Query) -> bytes:
    """No server could say."""
    return _bare(query.message, dns.rcode.SERVFAIL)


def refused(query: Query) -> bytes:
    """Who asks may not."""
    return _bare(query.message, dns.rcode.REFUSED)


def missing(query: Query) -> bytes:
    """There is no such name."""
    return _bare(query.message, dns.rcode.NXDOMAIN)


def cut(query: Query) -> bytes:
    """The answer is too long for a datagram: to be asked for again by TCP."""
    response = dns.message.make_response(query.message, recursion_available=True, our_payload=LONGEST)
    response.flags |= dns.flags.TC
    return response.to_wire(max_size=query.room)


def addresses(query: Query, found: Iterable[str], ttl: int) -> bytes:
    """These addresses; what there is no room for is left out, and said (TC)."""
    return _answer(query, [_record(RdataType.AAAA if ":" in each else RdataType.A, each) for each in found], ttl)


def pointers(query: Query, names: Iterable[str], ttl: int) -> bytes:
    """The names of an address; no answer where something else than names was asked for."""
    wanted = query.type in (RdataType.PTR, RdataType.ANY)
    return _answer(query, [_record(RdataType.PTR, f"{name}.") for name in names if wanted], ttl)


def _record(kind: RdataType, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, kind, text)


def _answer(query: Query, records: Sequence[dns.rdata.Rdata], ttl: int) -> bytes:
    response = dns.message.make_response(query.message, recursion_available=True, our_payload=LONGEST)
    response.flags |= dns.flags.AA
    name = query.message.question[0].name
    for kind in (RdataType.A, RdataType.AAAA, RdataType.PTR):
        alike = [record for record in records if record.rdtype == kind]
        if alike:
            response.answer.append(dns.rrset.from_rdata_list(name, ttl, alike))
    return response.to_wire(max_size=query.room, prefer_truncation=True, want_shuffle=False)


def reversed_address(query: Query) -> str:
    """The address that is asked for by its name under in-addr.arpa or ip6.arpa; an empty string for any other name."""
    try:
        return dns.reversename.to_address(query.message.question[0].name)
    except (dns.exception.DNSException, ValueError):
        return ""


def with_id(wire: bytes, identity: bytes) -> bytes:
    """The same message under another id."""
    return identity + wire[2:]


def answers(response: bytes, query: Query, identity: bytes) -> bool:
    """Whether these bytes are an answer to a question that was passed on under an id."""
    if len(response) < _HEADER or response[:2] != identity or response[2] & 0xF8 != 0x80:
        return False
    if response[4:6] == b"\0\1":
        return response[_HEADER : _HEADER + len(query.question)] == query.question
    return response[4:6] == b"\0\0" and has_failed(response)  # servers that say no, and to nothing in particular


def has_failed(response: bytes) -> bool:
    """Whether a server says that it cannot tell, so that another may be able to."""
    return response[3] & 0x0F in _FAILURES


def is_cut(response: bytes) -> bool:
    """Whether there is more than was sent (TC)."""
    return bool(response[2] & 0x02)


def learned(response: bytes) -> Learned:
    """The addresses that a server's answer gives, over all names that it leads to. None where it is no sound answer."""
    try:
        message = dns.message.from_wire(response)
        assert isinstance(message, dns.message.QueryMessage)
        chain = message.resolve_chaining()
    except Exception:  # as above: it comes from the internet
        return Learned((), 0)
    found = chain.answer
    if found is None or found.rdtype not in (RdataType.A, RdataType.AAAA):
        return Learned((), 0)
    return Learned(tuple(each.to_text() for each in cast("Iterable[dns.rdata.Rdata]", found)), chain.minimum_ttl)
