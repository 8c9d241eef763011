"""The tables of nftables that are not ours, as they are read once per plan: chains, rules and sets.

The text that libnftables gives is kept with the plan's claims, so that each container of a plan asks the very same
rules, and the kernel is asked once.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pycore.hookspecs import Host
from pycore.linux.look import Look

Statement = Mapping[str, Any]
"""One of a rule's: ``{"match": {...}}``, ``{"drop": None}`` (libnftables-json(5))."""

_TABLES = " "
"""Among the texts: the names of the tables; all others are named by themselves."""
_NOTHING = '{"nftables": []}'


@dataclass(frozen=True)
class Rule:
    """A rule, by the number that the kernel has given it."""

    handle: int
    statements: Sequence[Statement]


@dataclass(frozen=True)
class Chain:
    """A chain; one that the kernel calls has a hook."""

    name: str
    hook: str = ""
    kind: str = ""
    """``filter``, ``nat``, ``route``."""
    priority: int = 0
    policy: str = "accept"
    rules: list[Rule] = field(default_factory=list[Rule])


@dataclass(frozen=True)
class Table:
    """A table of somebody else's."""

    family: str
    name: str
    chains: Mapping[str, Chain]
    elements: Callable[[str], Sequence[Any]]
    """Those of a named set or map."""

    @property
    def full_name(self) -> str:
        """``inet filter``."""
        return f"{self.family} {self.name}"


@dataclass(frozen=True)
class Ruleset:
    """All tables of others."""

    tables: Sequence[Table]

    def base_chains(self, hook: str, version: int) -> Iterator[tuple[Table, Chain]]:
        """The filters that the kernel calls at a place for packets of IPv4 or IPv6, in its order."""
        families = ("ip" if version == 4 else "ip6", "inet")
        found = [
            (chain.priority, index, table, chain)
            for index, table in enumerate(self.tables)
            if table.family in families
            for chain in table.chains.values()
            if chain.hook == hook and chain.kind != "nat"
        ]
        return ((table, chain) for _, _, table, chain in sorted(found, key=lambda each: each[:2]))


def read(look: Look, texts: dict[str, str], but: str = "") -> Ruleset:
    """The tables on this host, without those of one name; none where they cannot be read, for want of the library or
    of power. ``texts`` is where what was read is kept for the next time.
    """
    try:
        if _TABLES not in texts:
            texts[_TABLES] = "\n".join(name for name in look.nft_tables() if name.partition(" ")[2] != but)
        return Ruleset([_table(look, texts, name) for name in texts[_TABLES].splitlines()])
    except OSError:
        texts[_TABLES] = ""
        return Ruleset(())


def of_others(host: Host) -> Ruleset:
    """The tables of others on this host."""
    return read(host.look, host.claims.setdefault("tables of others", {}), host.instance)


def _table(look: Look, texts: dict[str, str], full_name: str) -> Table:
    if full_name not in texts:
        texts[full_name] = look.nft_contents(full_name)
    family, _, name = full_name.partition(" ")

    def elements(of: str) -> Sequence[Any]:
        key = f"{full_name} {of}"
        if key not in texts:
            try:
                texts[key] = look.nft_contents(full_name, of)
            except OSError:  # it has gone meanwhile
                texts[key] = _NOTHING
        return _elements(texts[key])

    return Table(family, name, _chains(texts[full_name]), elements)


@lru_cache(maxsize=16)
def _chains(text: str) -> Mapping[str, Chain]:
    rules: defaultdict[str, list[Rule]] = defaultdict(list)
    found: dict[str, Chain] = {}
    for each in json.loads(text)["nftables"]:
        if "chain" in each:
            about = each["chain"]
            found[about["name"]] = Chain(
                about["name"], about.get("hook", ""), about.get("type", ""), int(about.get("prio", 0)),
                about.get("policy", "accept"), rules[about["name"]],
            )  # fmt: skip
        elif "rule" in each:
            rules[each["rule"]["chain"]].append(Rule(each["rule"]["handle"], each["rule"]["expr"]))
    return found


@lru_cache(maxsize=64)
def _elements(text: str) -> Sequence[Any]:
    """The elements of the one set or map of a listing; what stands beside them, a time or a comment, is left out."""
    for each in json.loads(text)["nftables"]:
        about = each.get("set") or each.get("map")
        if about:
            return list(about.get("elem", ()))
    return ()
