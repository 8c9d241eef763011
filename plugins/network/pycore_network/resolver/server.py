"""What becomes of one query: who asks, what is known here, what is asked elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from pycore_network.resolver import wire
from pycore_network.resolver.datagrams import Reply
from pycore_network.resolver.forward import Forwarder
from pycore_network.resolver.policy import Policy
from pycore_network.resolver.tables import Asker, Tables
from pycore_network.resolver.upstream import Server
from pycore_network.resolver.wire import Query

TTL = 5
"""Seconds for which a container's address may be remembered: after a restart it may be another."""
_MOST_KEPT = 1024
"""Queries whose answers are kept, as they were sent, until anything changes;"""
_LONGEST_KEPT = 300
"""none that is longer: in a sound one there is a name of at most 255 bytes;"""
_TURNS_KEPT = 16
"""and so many answers to each, which differ in the order of addresses."""


@dataclass
class _Local:
    """What is known here of a name, and the answers that were made of it."""

    name: str
    addresses: Sequence[str]
    make: Callable[[int], bytes]
    """The answer that begins with this one of the addresses."""
    made: dict[int, bytes] = field(default_factory=dict[int, bytes])
    turn: count[int] = field(default_factory=count)

    def next(self) -> bytes:
        """The answer whose turn it is: each begins with another address."""
        first = next(self.turn) % (len(self.addresses) or 1)
        answer = self.made.get(first) or self.make(first)
        if len(self.made) < _TURNS_KEPT:
            self.made[first] = answer
        return answer


class Resolver:
    """Answers queries. For the loop's thread alone."""

    def __init__(
        self, tables: Tables, forwarder: Forwarder, policy: Policy, servers: Callable[[str], Sequence[Server]]
    ) -> None:
        """``servers`` says whom to ask for a container, given by its id, what is not known here."""
        self._tables, self._forwarder, self._policy, self._servers = tables, forwarder, policy, servers
        self._kept: dict[tuple[str, bool, bytes], _Local] = {}
        """By the container's id, the way that it asks, and the query but for its id."""

    def handle(self, data: bytes, source: str, stream: bool, reply: Reply) -> None:
        """Answer a query; ``reply`` is called once, now or later."""
        if self._tables.renew():
            self._kept.clear()
            self._policy.renew()
        asker = self._tables.asker(source)
        key = (asker.id if asker else "", stream, data[2:])
        known = self._kept.get(key)
        if known and asker and self._may_ask(asker, known.name):
            self._tell(asker, known, data[:2], reply)
            return
        query = wire.read(data, stream=stream)
        if not isinstance(query, Query):
            reply(query)
        elif asker is None or not self._may_ask(asker, query.name):
            reply(wire.refused(query))
        else:
            self._answer(asker, query, key, reply)

    def _may_ask(self, asker: Asker, name: str) -> bool:
        return not self._policy.binds(asker.id) or self._policy.may_ask(asker.id, name)

    def _answer(self, asker: Asker, query: Query, key: tuple[str, bool, bytes], reply: Reply) -> None:
        known = _local(asker, query)
        if known:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            if len(query.wire) <= _LONGEST_KEPT:
                self._kept[key] = known
            self._tell(asker, known, query.wire[:2], reply)
        elif asker.confined:
            reply(wire.refused(query))
        else:
            done = partial(self._heard, asker, query, reply)
            self._forwarder.ask(asker.id, query, self._servers(asker.id), done)

    def _tell(self, asker: Asker, known: _Local, identity: bytes, reply: Reply) -> None:
        if self._policy.binds(asker.id):
            self._policy.answered(asker.id, known.name, known.addresses, TTL)
        reply(wire.with_id(known.next(), identity))

    def _heard(self, asker: Asker, query: Query, reply: Reply, response: bytes | None) -> None:
        """Pass on what a server has answered. It does not say who of our own containers may be reached."""
        if response is None:
            reply(wire.failed(query))
            return
        if query.wants_addresses and self._policy.binds(asker.id):
            learned = wire.learned(response)
            elsewhere = [each for each in learned.addresses if not self._tables.is_ours(each)]
            self._policy.answered(asker.id, query.name, elsewhere, learned.ttl)
        reply(response if len(response) <= query.room else wire.cut(query))


def _local(asker: Asker, query: Query) -> _Local | None:
    """What is known here of the name that is asked for; None where it is another's to know."""
    addresses = asker.addresses(query.name)
    if addresses is not None:
        found = query.wanted(addresses)
        return _Local(query.name, found, lambda first: wire.addresses(query, found[first:] + found[:first], TTL))
    address = wire.reversed_address(query)
    names = asker.names(address) if address else None
    if names is None:
        return None
    return _Local(query.name, (), lambda _: wire.pointers(query, names, TTL) if names else wire.missing(query))
