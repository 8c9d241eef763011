"""The text of resolv.conf(5): the host's, and that of a container."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

HOST = "/etc/resolv.conf"
BARE_FIRST = "ndots:0"
"""A name without a dot is asked for as it stands before the domains to search in: else a server of the host's domain
could say who ``db`` is."""

_KEYS = ("nameserver", "search", "domain", "options")


def lines(text: str) -> Iterator[tuple[str, str]]:
    """What it says: keyword and value, those that say nothing left out."""
    for line in text.splitlines():
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in _KEYS and value.strip():
            yield key, value.strip()


def of_container(
    host: Sequence[tuple[str, str]], servers: Sequence[str], search: Sequence[str], options: Sequence[str]
) -> list[tuple[str, str]]:
    """What a container's says, where the host's says so much. What is given takes the place of what the host has.

    ``.`` as the one domain to search in stands for none.
    """
    found = list(host)
    if servers:
        found = [line for line in found if line[0] != "nameserver"]
        found += [("nameserver", address) for address in servers]
    if search:
        found = [line for line in found if line[0] not in ("search", "domain")]
        found += [("search", " ".join(search))] if tuple(search) != (".",) else []
    if options:
        found = [line for line in found if line[0] != "options"]
        found.append(("options", " ".join(options)))
    return found


def bare_first(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same with :data:`BARE_FIRST`, unless something else is said of that."""
    said = any(word.startswith("ndots:") for key, value in found if key == "options" for word in value.split())
    return found if said else [*found, ("options", BARE_FIRST)]
