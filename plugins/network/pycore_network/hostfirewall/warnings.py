"""What ``plan`` says of the host's own firewall: that a port passes it by, or that it lets nothing through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

from pycore.errors import Problem
from pycore.hookspecs import Host

from pycore_network.hostfirewall import questions
from pycore_network.hostfirewall.questions import ELSEWHERE, Port, Source
from pycore_network.hostfirewall.ruleset import Ruleset, of_others
from pycore_network.hostfirewall.walk import Fate, Outcome, Place
from pycore_network.hostfirewall.ways import Way, ways
from pycore_network.networks import Network
from pycore_network.ops.lease import RECORD
from pycore_network.ports import LAN, Ports

_PORTS, _NETWORKS = ("network", "ports"), ("network", "networks")
"""Where in a container's table its ports, and its networks, are."""
_WARNED = "places that drop what is forwarded"
_HINT = (
    'say who may reach it: expose = "lan" or allow_from = [...]; or have those rules count: proxy = true, which serves '
    "the port through a socket of the host"
)


def warn(host: Host, networks: Sequence[Network], published: Sequence[Ports]) -> None:
    """Put on the host what its own firewall has to do with a container in these networks, with these ports.

    Other people's rules are read where that may tell something new: of ports, and of networks that are just being made.
    """
    fresh = [each for each in networks if not host.look.exists(f"{each.directory}/{RECORD}")]
    if host.warnings is None or not (published or fresh):
        return
    rules = of_others(host)
    if not rules.tables:
        return
    for index, ports in enumerate(published):
        if not ports.proxy and not ports.only_here:
            host.warnings += _passed_by(host, rules, ports, index)
    for network in networks:
        host.warnings += _blocked(host, rules, network, published, way_out=network in fresh)


def _passed_by(host: Host, rules: Ruleset, published: Ports, index: int) -> Iterator[Problem]:
    """Where the host's own firewall would have dropped what comes to a published port.

    Address translation happens before the host's input rules are asked, so a published port passes them by.
    """
    for number in published:
        asked = [Port(version, published.protocol, number, _address(published)) for version in published.versions]
        places = list(questions.dropped(
            questions.into_host(rules, port, way.device, source)
            for port in asked
            for way in ways(host.look, port.version)
            for source in _sources(published, way, port.version)
        ))  # fmt: skip
        if places:
            whose = questions.keeper(places[0])
            words = "; and ".join(questions.place_words(host.look, place) for place in places)
            message = (
                f"the host's own firewall{whose and f', {whose},'} would drop port {number}/{published.protocol} from "
                f"other hosts, which a published port passes by: {words}"
            )
            yield Problem((*_PORTS, index), message, _HINT)
            return


def _blocked(
    host: Host, rules: Ruleset, network: Network, published: Sequence[Ports], *, way_out: bool
) -> Iterator[Problem]:
    """Where what is forwarded to or from a network is dropped by others; once in a plan for each place."""
    into, out = _on_the_way(host, rules, network, published, way_out=way_out)
    for place in questions.dropped((*into, *out)):
        key = f"{place.table.full_name} {place.chain} {place.handle} {network.bridge}"
        if key not in host.claims.setdefault(_WARNED, {}):
            host.claims[_WARNED][key] = ""
            what = [
                *(["published ports are reached from this host alone"] if _drops(into, place) else []),
                *(["containers have no way out"] if _drops(out, place) else []),
            ]
            words = questions.place_words(host.look, place)
            message = f"the host's own firewall drops what is forwarded, so {' and '.join(what)}: {words}"
            yield Problem(_NETWORKS, message, questions.letting_through(place))


def _drops(outcomes: Sequence[Outcome], place: Place) -> bool:
    return any(each.fate is Fate.DROPPED and each.place == place for each in outcomes)


def _on_the_way(
    host: Host, rules: Ruleset, network: Network, published: Sequence[Ports], *, way_out: bool
) -> tuple[list[Outcome], list[Outcome]]:
    """What becomes of a connection to a published port, and of one from the network to another host."""
    into: list[Outcome] = []
    out: list[Outcome] = []
    for version in {subnet.version for subnet in network.subnets}:
        of_version = (each for each in published if version in each.versions and not each.proxy and not each.only_here)
        port = next(of_version, None)
        for way in ways(host.look, version):
            if port:
                asked = Port(version, port.protocol, port.port)
                into.append(questions.into_container(rules, asked, way.device, network.bridge))
            if way_out:
                out.append(questions.out_of_container(rules, version, network.bridge, way.device))
    return into, out


def _address(published: Ports) -> Source:
    return ip_address(published.one_address) if published.one_address else ELSEWHERE


def _sources(published: Ports, way: Way, version: int) -> list[Source]:
    """Hosts that may reach it: any, one of those at the other end of a device, or the first of each network allowed."""
    if published.allow_from:
        allowed = [ip_network(text) for text in published.allow_from]
        return [network[min(1, network.num_addresses - 1)] for network in allowed if network.version == version]
    if published.expose == LAN:
        return [network[-2] for network in way.networks if network.is_private and network.num_addresses > 2]
    return [ELSEWHERE]
