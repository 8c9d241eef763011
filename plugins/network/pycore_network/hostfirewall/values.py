"""Whether a value is among those that a rule names; None where nobody can know.

Values of a packet are compared with elements of sets as libnftables writes them: numbers, words, addresses, prefixes,
ranges, several of these in one (concatenations), and with lists of flags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, cast

from pycore_network.hostfirewall.packet import Somewhere


class Unknown:
    """A value that nobody knows."""


UNKNOWN = Unknown()

Value = int | str | bool | IPv4Address | IPv6Address | Somewhere | Unknown | frozenset[str] | tuple["Value", ...]
"""A set of words are flags: those that are set. A tuple is a concatenation."""

Elements = Callable[[str], Sequence[Any]]
"""The elements of a named set."""

NUMBERS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58,
    "ospf": 89, "vrrp": 112, "sctp": 132, "udplite": 136, "dccp": 33, "comp": 108,
}  # fmt: skip
"""Protocols that are written as words."""


def among(value: Value, elements: Any, named: Elements) -> bool | None:
    """Whether a value is one of the elements: of one, of a list, a set or a set that is named ``@NAME``."""
    if isinstance(value, Unknown):
        return None
    if isinstance(elements, str) and elements.startswith("@"):
        return _among(value, named(elements[1:]))
    if isinstance(elements, dict) and "set" in elements:
        return _among(value, cast("dict[str, Any]", elements)["set"])
    if isinstance(value, frozenset):
        return bool(value & flags(elements))
    if isinstance(elements, list):
        return _among(value, cast("list[Any]", elements))
    return _among(value, [elements])


def _among(value: Value, elements: Any) -> bool | None:
    found = [bare(element) for element in (cast("list[Any]", elements) if isinstance(elements, list) else [elements])]
    if isinstance(value, Somewhere):
        return _is_most(found)
    if isinstance(value, frozenset):
        return any(value & flags(element) for element in found)
    return any_of(is_one(value, element) for element in found)


def bare(element: Any) -> Any:
    """An element without what stands beside it: a time, a counter, a comment."""
    about = cast("dict[str, Any]", element) if isinstance(element, dict) else {}
    return about["elem"]["val"] if "elem" in about else cast("Any", element)


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """Whether one of them is so."""
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown |= answer is None
    return None if unknown else False


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """Whether each of them is so."""
    return _not(any_of(_not(answer) for answer in answers))


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def is_one(value: Value, element: Any) -> bool | None:
    """Whether a value is the very one of an element, or within its prefix or range."""
    if isinstance(value, Unknown):
        return None
    if element == "*":  # what takes all that no other element does
        return True
    if isinstance(element, dict):
        return _is_composed(value, cast("Mapping[str, Any]", element))
    if isinstance(value, Somewhere):
        return False
    if isinstance(value, tuple):
        return None
    if isinstance(value, IPv4Address | IPv6Address):
        return value in _addresses(element)
    if isinstance(value, bool) or isinstance(element, bool):
        return value is element
    if isinstance(value, int):
        number = NUMBERS.get(element, element) if isinstance(element, str) else element
        return value == number if isinstance(number, int) else None
    return _same_word(str(value), str(element))


def _same_word(value: str, wanted: str) -> bool:
    """A device's name may end in a star; protocols are words or numbers."""
    if wanted.endswith("*"):
        return value.startswith(wanted[:-1])
    return value == wanted or (value in NUMBERS and str(NUMBERS[value]) == str(NUMBERS.get(wanted, wanted)))


def _is_composed(value: Value, element: Mapping[str, Any]) -> bool | None:
    if "concat" in element:
        parts: Sequence[Any] = element["concat"]
        if not isinstance(value, tuple) or len(parts) != len(value):
            return None
        return all_of(_part(one, other) for one, other in zip(value, parts, strict=True))
    if "set" in element:
        return _among(value, element["set"])
    if isinstance(value, Somewhere):
        return _is_most([element])
    if isinstance(value, IPv4Address | IPv6Address):
        first, last = bounds(element)
        return first <= int(value) <= last if _version(element) == value.version else False
    if "range" in element and isinstance(value, int):
        first, last = element["range"]
        return first <= value <= last if isinstance(first, int) and isinstance(last, int) else None
    return None


def _part(value: Value, element: Any) -> bool | None:
    return _among(value, [element])


def _addresses(element: Any) -> IPv4Network | IPv6Network | tuple[()]:
    try:
        return ip_network(str(element), strict=False)
    except ValueError:
        return ()


def _version(element: Mapping[str, Any]) -> int:
    text = element["prefix"]["addr"] if "prefix" in element else element.get("range", ["0.0.0.0"])[0]
    return 6 if ":" in str(text) else 4


def bounds(element: Any) -> tuple[int, int]:
    """The first and the last address of an element, as numbers. Raises ValueError where it is none of addresses."""
    if isinstance(element, dict) and "prefix" in element:
        prefix = cast("dict[str, Any]", element)["prefix"]
        network = ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
        return int(network[0]), int(network[-1])
    if isinstance(element, dict) and "range" in element:
        first, last = cast("dict[str, Any]", element)["range"]
        return int(ip_address(first)), int(ip_address(last))
    network = ip_network(str(cast("object", element)), strict=False)
    return int(network[0]), int(network[-1])


def _is_most(elements: Sequence[Any]) -> bool:
    """Whether elements hold at least half of all addresses; IPv4's and IPv6's are not in one set."""
    held, size = 0, 1 << 32
    for element in elements:
        if element == "*":
            return True
        try:
            first, last = bounds(element)
        except ValueError:
            continue
        if last >= 1 << 32 or ":" in str(element):
            size = 1 << 128
        held += last - first + 1
    return held * 2 >= size


def flags(element: Any) -> frozenset[str]:
    """The words of an element that names flags: one, a list, or several joined with ``|``."""
    if isinstance(element, str):
        return frozenset((element,))
    if isinstance(element, dict):
        return flags(next(iter(cast("dict[str, Any]", element).values()), ()))
    if isinstance(element, list | tuple):
        return frozenset(word for each in cast("Sequence[Any]", element) for word in flags(each))
    return frozenset()
