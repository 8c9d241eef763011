"""Which rules let packets to a port of the host in, or not, and from where: ours and those of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pycore.hookspecs import Host
from pycore.ops import Operation

from pycore_network.elements import of_ports, sources_of
from pycore_network.hostfirewall import questions
from pycore_network.hostfirewall.packet import Address
from pycore_network.hostfirewall.questions import ELSEWHERE, Port, Source
from pycore_network.hostfirewall.ruleset import Ruleset, of_others
from pycore_network.hostfirewall.walk import Fate, Outcome
from pycore_network.hostfirewall.ways import ways
from pycore_network.ops.bridge import Join
from pycore_network.ops.publish import Publish
from pycore_network.ops.serve import Serve
from pycore_network.ports import Ports, version_of

HERE, CONTAINERS, OTHERS = "this host", "containers", "other hosts"


@dataclass(frozen=True)
class Answer:
    """What becomes of packets from one place."""

    source: str
    """``this host``, ``192.168.1.0/24 by eth0``, ``other hosts by eth0``, ``containers``."""
    version: int
    """4 or 6."""
    fate: str
    """``let in``, ``dropped``, ``unknown``."""
    why: str


@dataclass(frozen=True)
class Explained:
    """A port of the host."""

    what: str
    """Who serves it: ``leads to shop/web, 10.208.0.5:80``."""
    answers: tuple[Answer, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _From:
    """Where packets come from."""

    name: str
    source: Source
    device: str = ""


def explain(host: Host, protocol: str, number: int, made: Iterable[tuple[str, Sequence[Operation]]]) -> list[Explained]:
    """All that serves a port. ``made`` are the containers that there are, each with what was done for it."""
    found = [
        _container(host, name, operations, operation, number)
        for name, operations in made
        for operation in operations
        if isinstance(operation, Publish | Serve) and operation.protocol == protocol and number in _ports(operation)
    ]
    return found or [_process(host, protocol, number)]


def _ports(operation: Publish | Serve) -> Ports:
    if isinstance(operation, Publish):
        return operation.ports
    return Ports(
        operation.protocol, operation.host_ip, operation.host_port, operation.port, operation.count,
        operation.expose, operation.allow_from, proxy=True,
    )  # fmt: skip


def _addresses(operation: Publish | Serve) -> tuple[str, ...]:
    return operation.addresses if isinstance(operation, Publish) else (operation.address,)


def _container(
    host: Host, name: str, operations: Sequence[Operation], operation: Publish | Serve, number: int
) -> Explained:
    ports, addresses, rules = _ports(operation), _addresses(operation), of_others(host)
    inside = ports.port + number - ports.host_port
    shown = ", ".join(f"[{each}]:{inside}" if ":" in each else f"{each}:{inside}" for each in addresses)
    by = "; a socket of the supervisor serves it" if ports.proxy else ""
    answers: list[Answer] = []
    for version in ports.versions:
        address = next((each for each in addresses if ports.proxy or version_of(each) == version), "")
        if address:
            asked = _Asked(rules, ports, version, number, Port(version, ports.protocol, inside, ip_address(address)))
            answers += _answers(host, asked, _bridge(operations, address))
    notes = [] if ports.proxy else [*_missing(host, ports, addresses, number, name)]
    notes += dict.fromkeys(_bypassed(host, rules, ports, number))
    return Explained(f"leads to {name}, {shown}{by}", tuple(answers), tuple(notes))


def _bridge(operations: Iterable[Operation], address: str) -> str:
    return next((each.bridge for each in operations if isinstance(each, Join) and address in each.addresses), "")


@dataclass(frozen=True)
class _Asked:
    rules: Ruleset
    ports: Ports
    version: int
    number: int
    inside: Port

    @property
    def outside(self) -> Port:
        """The port as others see it."""
        own = self.ports.one_address
        return Port(self.version, self.ports.protocol, self.number, ip_address(own) if own else ELSEWHERE)


def _answers(host: Host, asked: _Asked, bridge: str) -> Iterator[Answer]:
    yield Answer(HERE, asked.version, Fate.ACCEPTED.value, _OURS_LET_IN)
    pools = [_From(CONTAINERS, asked.inside.address, bridge)] if isinstance(asked.inside.address, Address) else []
    for each in (*pools, *_others(host, asked)):
        yield _answer(host, asked, each, bridge)


_OURS_LET_IN = "it is published"


def _others(host: Host, asked: _Asked) -> Iterator[_From]:
    """Other hosts: those that are behind a device, those that are named, and all others."""
    for way in ways(host.look, asked.version):
        allowed = [ip_network(text) for text in asked.ports.allow_from]
        for network in dict.fromkeys((*way.networks, *(each for each in allowed if each.version == asked.version))):
            first = network[min(1, network.num_addresses - 1)]
            yield _From(f"{network} by {way.device}", first, way.device)
        yield _From(f"{OTHERS} by {way.device}", ELSEWHERE, way.device)


def _answer(host: Host, asked: _Asked, each: _From, bridge: str) -> Answer:
    refused = _refused(asked, each.source)
    if refused:
        return Answer(each.name, asked.version, Fate.DROPPED.value, refused)
    steps: list[Callable[[], Outcome]] = [
        lambda: questions.on_arrival(asked.rules, asked.outside, each.device, each.source)
    ]
    if asked.ports.proxy:
        steps.append(lambda: questions.into_host(asked.rules, asked.outside, each.device, each.source))
    else:
        steps.append(lambda: questions.into_container(asked.rules, asked.inside, each.device, bridge, each.source))
    return _told(host, each.name, asked.version, steps, _OURS_LET_IN)


def _told(host: Host, name: str, version: int, steps: Iterable[Callable[[], Outcome]], otherwise: str) -> Answer:
    """The first that does not let it in; the last place that does."""
    last = Outcome(Fate.ACCEPTED)
    for step in steps:
        found = step()
        last = found if found.place or found.fate is not Fate.ACCEPTED else last
        if found.fate is not Fate.ACCEPTED:
            break
    why = questions.place_words(host.look, last.place) if last.place else otherwise
    return Answer(name, version, last.fate.value, why)


def _refused(asked: _Asked, source: Source) -> str:
    """Why a port is not published to those who come from there; empty where it is."""
    ports = asked.ports
    if ports.only_here:
        return "it is published to this host alone"
    allowed = sources_of(ports.expose, ports.allow_from, asked.version)
    if allowed is None or (isinstance(source, Address) and any(source in ip_network(each) for each in allowed)):
        return ""
    said = [f'expose = "{ports.expose}"'] if ports.expose != "all" else []
    return "not published to it: " + " and ".join([*said, *(["allow_from"] if ports.allow_from else [])])


def _missing(host: Host, ports: Ports, addresses: Sequence[str], number: int, name: str) -> Iterator[str]:
    """Elements of our tables that are not there."""
    for each in of_ports(ports, addresses, name):
        if f". {number}" in each.key:
            try:
                (packets,) = host.look.nft_packets(host.instance, [each])
            except OSError:
                return
            if packets is None:
                yield f"missing in nft table {host.instance}: {each}; pycore doctor --repair puts it back"


def _bypassed(host: Host, rules: Ruleset, ports: Ports, number: int) -> Iterator[str]:
    """What the host's input rules would have said, which a published port passes by."""
    if ports.proxy or ports.only_here:
        return
    for version in ports.versions:
        port = Port(version, ports.protocol, number)
        outcomes = (questions.into_host(rules, port, way.device) for way in ways(host.look, version))
        for place in questions.dropped(outcomes):
            words = questions.place_words(host.look, place)
            yield f"passes by the host's own firewall, which would drop it from other hosts: {words}"


def _process(host: Host, protocol: str, number: int) -> Explained:
    """A port that no container has."""
    if protocol not in ("tcp", "udp"):
        return Explained("no container has it")
    owner = host.look.listener_owner(protocol, number)
    if not owner:
        return Explained("nobody serves it")
    rules, answers = of_others(host), list[Answer]()
    for version in (4, 6):
        port = Port(version, protocol, number)
        for way in ways(host.look, version):
            named = (_From(f"{network} by {way.device}", network[1], way.device) for network in way.networks)
            for each in (*named, _From(f"{OTHERS} by {way.device}", ELSEWHERE, way.device)):
                answers.append(_program(host, rules, port, each))
    return Explained(f"is served by {owner}, no container", tuple(answers))


def _program(host: Host, rules: Ruleset, port: Port, each: _From) -> Answer:
    steps = (
        lambda: questions.on_arrival(rules, port, each.device, each.source),
        lambda: questions.into_host(rules, port, each.device, each.source),
    )
    return _told(host, each.name, port.version, steps, "no rule is against it")
