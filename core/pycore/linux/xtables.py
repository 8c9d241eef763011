"""Reads what nft(8) does not show: matches and targets of iptables in rules of nftables, as the kernel keeps them.

iptables-nft writes what nftables has no words for as an expression ``match`` or ``target``, with the structure that
iptables has always passed to the kernel (``linux/netfilter/xt_*.h``). libnftables gives no more than its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pycore.linux import nfnetlink
from pycore.linux.nlmessages import DUMP, REQUEST, attribute, attributes

_GETRULE = nfnetlink.NFTABLES | 7
_RULE_TABLE, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 3, 4
_NAME, _DATA, _REVISION, _INFO = 1, 2, 2, 3
"""NFTA_EXPR_NAME and NFTA_EXPR_DATA; then NFTA_MATCH_REV and NFTA_MATCH_INFO, which targets have the same."""


@dataclass(frozen=True)
class Extension:
    """A match or a target of iptables in a rule."""

    name: str
    """``conntrack``, ``REJECT``."""
    revision: int
    info: bytes
    """Its structure, in this machine's byte order, padded at its end."""


def extensions(table: str) -> dict[int, list[Extension]]:
    """Those of each rule of a table (``ip filter``), by the rule's handle and in the rule's order. Raises OSError."""
    family, _, name = table.partition(" ")
    wanted = attribute(_RULE_TABLE, name.encode() + b"\0")
    found: dict[int, list[Extension]] = {}
    with nfnetlink.open_socket() as sock:
        rules = nfnetlink.dump(sock, nfnetlink.request(_GETRULE, REQUEST | DUMP, nfnetlink.FAMILIES[family], wanted))
    for rule in rules:
        about = dict(attributes(nfnetlink.split(rule)[1]))
        there = list(_extensions(about.get(_RULE_EXPRESSIONS, b"")))
        if there:
            found[int.from_bytes(about[_RULE_HANDLE], "big")] = there
    return found


def _extensions(expressions: bytes) -> Iterator[Extension]:
    for _, expression in attributes(expressions):
        parts = dict(attributes(expression))
        if parts.get(_NAME, b"").rstrip(b"\0") in (b"match", b"target"):
            about = dict(attributes(parts.get(_DATA, b"")))
            name = about.get(_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
            yield Extension(name, int.from_bytes(about.get(_REVISION, b""), "big"), about.get(_INFO, b""))
