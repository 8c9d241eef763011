"""What a container may send to, whom that has turned out to be, and whom it has tried to reach besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from pycore.hookspecs import Host
from pycore.ops import Operation

from pycore_network.elements import BRIDGE, INET
from pycore_network.ops.egress import AllowName, AllowNetwork, Bind


@dataclass(frozen=True)
class Told:
    """Of one container."""

    bound: bool
    """Whether it has an egress at all."""
    allowed: dict[str, tuple[str, ...]]
    """``example.org:443/tcp`` to the addresses that may be used for it now; of networks there are none to tell."""
    denied: tuple[str, ...]
    """Whom it has tried to reach within an hour without being allowed to: ``192.0.2.66:53/udp``."""


def tell(host: Host, done: Sequence[Operation]) -> Told:
    """``done`` is what was done for the container."""
    bound = [each for each in done if isinstance(each, Bind)]
    allowed: dict[str, tuple[str, ...]] = {}
    for each in done:
        if isinstance(each, AllowNetwork):
            allowed.setdefault(each.words, ())
        elif isinstance(each, AllowName):
            known = {element.key.split(" . ")[1] for element in each.learned_now(host.look)}
            allowed[each.words] = tuple(sorted({*allowed.get(each.words, ()), *known}))
    own = {address for each in bound for address in each.addresses}
    return Told(bool(bound), allowed, tuple(sorted(_denied(host, own))))


def _denied(host: Host, own: set[str]) -> set[str]:
    """What is routed and what stays within a bridge are refused by different tables."""
    found: set[str] = set()
    for family, place in product((INET, BRIDGE), ("denied", "denied6")):
        for key in host.look.nft_elements(f"{family} {host.instance}", place):
            source, target, protocol, port = key.split(" . ")
            if source in own:
                found.add(f"[{target}]:{port}/{protocol}" if ":" in target else f"{target}:{port}/{protocol}")
    return found
