"""A packet's way through the chains of other people's tables: what becomes of it, and which rule says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from pycore_network.hostfirewall import expressions, xtables
from pycore_network.hostfirewall.expressions import Absent, value
from pycore_network.hostfirewall.packet import Packet
from pycore_network.hostfirewall.ruleset import Chain, Rule, Ruleset, Statement, Table
from pycore_network.hostfirewall.values import all_of, any_of, bare, is_one

_MOST = 100_000
"""Rules that are walked through for one packet. Jumps that meet again and again could make it take for ever."""


class Fate(Enum):
    """What becomes of a packet."""

    ACCEPTED = "let in"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Place:
    """What says so: a rule of a chain, or, with no rule, the chain's policy."""

    table: Table
    chain: str
    handle: int = 0


@dataclass(frozen=True)
class Outcome:
    """What becomes of a packet, and where that is said; nobody says anything where there is no filter at all."""

    fate: Fate
    place: Place | None = None


class _Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class _End:
    """How a walk through a chain ends: ``RETURN`` where it has not ended yet."""

    verdict: _Verdict
    place: Place | None = None


_ENDS = {"accept": _Verdict.ACCEPT, "drop": _Verdict.DROP, "reject": _Verdict.DROP, "return": _Verdict.RETURN,
         "queue": _Verdict.UNKNOWN, "synproxy": _Verdict.UNKNOWN}  # fmt: skip
_FATES = {_Verdict.ACCEPT: Fate.ACCEPTED, _Verdict.DROP: Fate.DROPPED, _Verdict.UNKNOWN: Fate.UNKNOWN}


def fate(ruleset: Ruleset, hook: str, packet: Packet) -> Outcome:
    """What the filters of a place (``input``, ``forward``) make of a packet: dropped where any of them drops it."""
    decided: Outcome | None = None
    doubt: Outcome | None = None
    for table, chain in ruleset.base_chains(hook, packet.version):
        walk = _Walk(table, packet)
        outcome = walk.through_base(chain)
        packet = walk.packet
        if outcome.fate is Fate.DROPPED:
            return outcome
        if outcome.fate is Fate.UNKNOWN:
            doubt = doubt or outcome
        decided = outcome
    return doubt or decided or Outcome(Fate.ACCEPTED)


@dataclass
class _Walk:
    """One packet in the chains of one table."""

    table: Table
    packet: Packet
    rules: int = 0
    perhaps: list[_End] = field(default_factory=list[_End])
    """Ends that it would have if a rule holds of which nobody knows whether it does."""

    def through_base(self, chain: Chain) -> Outcome:
        end = self.through(chain)
        if end.verdict is _Verdict.RETURN:
            policy = _Verdict.DROP if chain.policy == "drop" else _Verdict.ACCEPT
            end = _End(policy, Place(self.table, chain.name))
        other = next((each for each in self.perhaps if each.verdict is not end.verdict), None)
        if other:
            return Outcome(Fate.UNKNOWN, other.place)
        return Outcome(_FATES[end.verdict], end.place)

    def through(self, chain: Chain) -> _End:
        for rule in chain.rules:
            self.rules += 1
            place = Place(self.table, chain.name, rule.handle)
            if self.rules > _MOST:
                return _End(_Verdict.UNKNOWN, place)
            end = self.by(rule, place)
            if end:
                return end
        return _End(_Verdict.RETURN)

    def by(self, rule: Rule, place: Place) -> _End | None:
        """How it ends by a rule; None where the next one comes."""
        sure = True
        for statement in rule.statements:
            holds = self.holds(statement)
            if holds is False:
                return None
            sure = sure and holds is not None
            end = self.ends(statement, place, sure)
            if end and sure:
                return end
            if end:
                self.perhaps += [] if end.verdict is _Verdict.RETURN else [end]
                return None
        return None

    def holds(self, statement: Statement) -> bool | None:
        """Whether what a statement asks is so; what asks nothing holds."""
        kind, about = next(iter(statement.items()))
        if kind == "match":
            return expressions.holds(about, self.packet, self.table.elements)
        if kind == "xt":
            return True if _is_target(about) else xtables.holds(about, self.packet)
        if kind in ("limit", "quota", "ct count"):
            return not about.get("inv", False)  # one packet now and then is within any limit, and never over it
        if kind == "reject":
            return _can_be_told(about, self.packet)
        if kind in ("set", "meter"):
            inner: Statement | list[Statement] = about.get("stmt") or []
            return all_of(self.holds(each) for each in (inner if isinstance(inner, list) else [inner]))
        return True

    def ends(self, statement: Statement, place: Place, sure: bool) -> _End | None:
        """How it ends by a statement; None where the next one of the rule comes."""
        kind, about = next(iter(statement.items()))
        if kind in _ENDS:
            return _End(_ENDS[kind], place)
        if kind in ("jump", "goto"):
            return self.into(about["target"], kind == "goto")
        if kind == "vmap":
            return self.by_map(about, place)
        if kind == "xt" and _is_target(about) and about["name"] in ("MARK", "CONNMARK"):
            self.packet = replace(self.packet, mark=xtables.marked(about, self.packet) if sure else None)
        elif kind == "xt" and _is_target(about):
            return _by_target(about, place)
        if kind == "mangle":
            self.change(about, sure)
        return None

    def into(self, name: str, for_good: bool) -> _End | None:
        """By another chain; from one that it was sent to for good it does not come back to the next rule."""
        end = self.through(self.table.chains[name])
        return end if end.verdict is not _Verdict.RETURN or for_good else None

    def by_map(self, about: Mapping[str, Any], place: Place) -> _End | None:
        """By the verdict of the first element of a map that it is; those of which nobody can know are kept in mind."""
        try:
            found = value(about["key"], self.packet)
        except Absent:
            return None
        for element, verdict in self.pairs(about["data"]):
            fits = any_of([_fits(found, element)])
            if fits is False:
                continue
            end = self.ends(verdict, place, fits is True)
            if fits:
                return end
            if end and end.verdict is not _Verdict.RETURN:
                self.perhaps.append(end)
        return None

    def pairs(self, data: Any) -> Iterator[tuple[Any, Statement]]:
        """The elements of a map; the one that takes all others comes last."""
        elements = self.table.elements(data[1:]) if isinstance(data, str) else data["set"]
        pairs = [(bare(key), verdict) for key, verdict in elements]
        yield from sorted(pairs, key=lambda pair: pair[0] == "*")

    def change(self, about: Mapping[str, Any], sure: bool) -> None:
        """Of what is written into packets, filters look at marks alone."""
        if about["key"] == {"meta": {"key": "mark"}}:
            mark = about["value"] if sure and isinstance(about["value"], int) else None
            self.packet = replace(self.packet, mark=mark)


def _fits(found: Any, element: Any) -> bool | None:
    if isinstance(found, frozenset):
        return element == "*" or element in found
    return is_one(found, element)


def _can_be_told(about: Mapping[str, Any] | None, packet: Packet) -> bool:
    """Whether a rejection is one for such a packet: nft leaves out of its listings what the kind of it says already."""
    kind = (about or {}).get("type")
    if kind in ("icmp", "icmpv6"):
        return packet.version == (4 if kind == "icmp" else 6)
    return kind != "tcp reset" or packet.protocol == "tcp"


def _is_target(about: Mapping[str, Any] | None) -> bool:
    return bool(about) and about.get("type") == "target"  # type: ignore[union-attr]


def _by_target(about: Mapping[str, Any], place: Place) -> _End | None:
    if about["name"] in xtables.CONTINUES:
        return None
    return _End(_Verdict.DROP if about["name"] == "REJECT" else _Verdict.UNKNOWN, place)
