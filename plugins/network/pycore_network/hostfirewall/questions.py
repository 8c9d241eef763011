"""What is asked of other people's rules: would a port be reached, is a published one, have containers a way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pycore.linux.look import Look

from pycore_network.hostfirewall.packet import Address, Packet, Somewhere
from pycore_network.hostfirewall.ruleset import Ruleset
from pycore_network.hostfirewall.walk import Fate, Outcome, Place, fate

Source = Address | Somewhere
ELSEWHERE = Somewhere.ELSEWHERE


@dataclass(frozen=True)
class Port:
    """A port that others would reach: of the host, or, on the way into a container, of that."""

    version: int
    protocol: str
    port: int
    address: Source = ELSEWHERE
    """What it is a port of."""


def on_arrival(rules: Ruleset, port: Port, device: str, source: Source = ELSEWHERE) -> Outcome:
    """What becomes of a connection before anybody has looked whether the port is a published one."""
    return fate(rules, "prerouting", Packet(port.version, port.protocol, source, port.address, port.port, device))


def into_host(rules: Ruleset, port: Port, device: str, source: Source = ELSEWHERE) -> Outcome:
    """What becomes of a connection to a port that a program of the host serves, once it has arrived."""
    return fate(rules, "input", Packet(port.version, port.protocol, source, port.address, port.port, device))


def into_container(rules: Ruleset, port: Port, device: str, bridge: str, source: Source = ELSEWHERE) -> Outcome:
    """What becomes of a connection to a published port, once it has arrived: it is on its way to the container's."""
    packet = Packet(port.version, port.protocol, source, port.address, port.port, device, bridge, translated=True)
    return _forwarded(rules, packet)


def out_of_container(rules: Ruleset, version: int, bridge: str, device: str, source: Source = ELSEWHERE) -> Outcome:
    """What becomes of what a container asks of other hosts, of a web server say."""
    return _forwarded(rules, Packet(version, "tcp", source, ELSEWHERE, 443, bridge, device))


def _forwarded(rules: Ruleset, packet: Packet) -> Outcome:
    first = fate(rules, "forward", packet)
    last = fate(rules, "postrouting", packet) if first.fate is Fate.ACCEPTED else first
    return last if last.fate is not Fate.ACCEPTED else first


# -- in words --------------------------------------------------------------------------------------------


def place_words(look: Look, place: Place) -> str:
    """``table inet filter, chain input, policy drop``; or the rule as its author wrote it."""
    where = f"table {place.table.full_name}, chain {place.chain}"
    if not place.handle:
        return f"{where}, policy {place.table.chains[place.chain].policy}"
    try:
        text = look.nft_rules(place.table.full_name, place.chain).get(place.handle, "")
    except OSError:
        text = ""
    return f'{where}, rule "{text}"' if text else f"{where}, the rule with handle {place.handle}"


def keeper(place: Place) -> str:
    """The program that has made a table, where it can be told by names: ``ufw``; an empty string else."""
    if place.table.name == "firewalld":
        return "firewalld"
    chains = place.table.chains
    for name, mark in (("ufw", "ufw-"), ("ufw", "ufw6-"), ("Docker", "DOCKER-"), ("libvirt", "LIBVIRT_")):
        if any(chain.startswith(mark) for chain in chains):
            return name
    return ""


def letting_through(place: Place) -> str:
    """The commands that have a place let what is forwarded from and to our bridges through, ready to be pasted."""
    if keeper(place) == "firewalld":
        return "firewall-cmd --permanent --zone=trusted --add-interface=pc-+ && firewall-cmd --reload"
    family, _, table = place.table.full_name.partition(" ")
    if family in ("ip", "ip6") and table == "filter" and "FORWARD" in place.table.chains:
        program = "iptables" if family == "ip" else "ip6tables"
        return " && ".join(f"{program} -I FORWARD {way} 'pc-+' -j ACCEPT" for way in ("-i", "-o"))
    insert = f"nft insert rule {family} {table} {place.chain}"
    return " && ".join(f"{insert} {way} 'pc-*' accept" for way in ("iifname", "oifname"))


def dropped(outcomes: Iterable[Outcome]) -> Iterator[Place]:
    """The places that drop, each once."""
    seen: set[tuple[str, str, int]] = set()
    for outcome in outcomes:
        place = outcome.place
        if outcome.fate is Fate.DROPPED and place:
            key = (place.table.full_name, place.chain, place.handle)
            if key not in seen:
                seen.add(key)
                yield place
