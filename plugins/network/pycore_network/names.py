"""What a container is called and how it finds names: /etc/hosts, /etc/hostname, /etc/resolv.conf, for any driver.

A container in a bridged network, its own or another's that it shares, asks the resolver, which knows its neighbours;
any other asks the servers that the host asks. The resolver asks for each container the servers of its own `dns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, ClassVar

import pydantic
from pycore.errors import Problem
from pycore.hookspecs import Host, Service, hookimpl
from pycore.linux.kernel import Kernel
from pycore.ops import Operation
from pycore.spec import Change, Container, Many, Section, Text, setting

from pycore_network import resolvconf
from pycore_network.known import DIRECTORY, Known
from pycore_network.memberships import Membership, memberships
from pycore_network.networks import BRIDGE, AddressText, Network, all_recorded, is_address
from pycore_network.ops.names import NameFile, NameFiles
from pycore_network.ops.pasta import RESOLVER
from pycore_network.resolver.service import ResolverService
from pycore_network.sharing import DRIVER as SHARING
from pycore_network.sharing import shared_by

if TYPE_CHECKING:
    from pycore_network.resolver.policy import Policy

_FILES = ("hosts", "hostname", "resolv.conf")

_HOSTS = "/etc/hosts"
_RESOLV_CONF = (resolvconf.HOST, "/run/systemd/resolve/resolv.conf")
"""The second is where systemd-resolved lists the servers behind its own (systemd-resolved(8))."""

HOST_GATEWAY = "host-gateway"
"""Docker's word for the host's own address."""

_NO_SERVER = "the host's name servers listen on its loopback only: set `dns` in [container.NAME.network]"


def _word(text: str) -> str:
    if not text or any(char.isspace() or char == "#" for char in text):
        raise ValueError("must be one word")
    return text


def _own_address(text: str) -> str:
    return text if text == HOST_GATEWAY else is_address(text)


Word = Annotated[Text, pydantic.AfterValidator(_word)]


class Names(Section):
    """How a container finds names."""

    table: ClassVar[str] = "container.*.network"

    dns: Many[AddressText] = setting(
        (),
        doc="Name servers to ask, in the place of the host's. In a bridged network the resolver asks them for this "
        "container, so that it finds other containers as well; with any other driver the container asks them itself.",
        change=Change.LIVE,
        example=["9.9.9.9"],
        flags=("--dns",),
    )
    dns_search: Many[Word] = setting(
        (),
        doc='Domains to search in; without it the host\'s. `["."]` is none.',
        change=Change.LIVE,
        example=["example.org"],
        flags=("--dns-search",),
    )
    dns_options: Many[Word] = setting(
        (),
        doc="Options of resolv.conf(5); without it the host's. In a bridged network `ndots:0` is added, unless these "
        "say otherwise: names of containers come before the domains to search in.",
        change=Change.LIVE,
        example=["ndots:1", "timeout:2"],
        flags=("--dns-option", "--dns-opt"),
    )
    extra_hosts: dict[Word, Annotated[Text, pydantic.AfterValidator(_own_address)]] = setting(
        {},
        doc="Lines to add to /etc/hosts: name and address. `host-gateway` stands for this host, by its addresses in "
        "the container's first bridged network.",
        change=Change.LIVE,
        example={"db": "192.0.2.7"},
        flags=("--add-host",),
        between=":=",
    )


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Names]


@hookimpl
def pycore_service(host: Host, kernel: Kernel) -> Service:
    """The resolver."""

    def policy() -> Policy:
        from pycore_network.egress.policy import Egress

        return Egress(kernel, str(host.run_dir), host.instance)

    return ResolverService(host, kernel, policy)


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    names, hostname, members = container[Names], _hostname(container), memberships(container, host)
    resolver = _resolver(_networks(container, host, members))
    return [
        NameFiles(
            _directory(container, host),
            _hosts(container, host, hostname, members),
            f"{hostname}\n",
            _text(_asking(resolver, names, host) if resolver else _direct(container, host)),
            "".join(f"{address}\n" for address in names.dns) if resolver else "",
        )
    ]


@hookimpl
def pycore_enter(container: Container, host: Host) -> Iterable[Operation]:
    directory = _directory(container, host)
    return [NameFile(f"{directory}/{name}", f"/etc/{name}") for name in _FILES]


def _directory(container: Container, host: Host) -> str:
    return f"{host.runtime_dir(container)}/names"


def _on_host(container: Container) -> bool:
    return container.drivers.get("network") == "host"


def _hostname(container: Container) -> str:
    """What the plugin that sets the host name sets, whichever it is; the container's name where none does."""
    found = (getattr(section, "hostname", None) for section in container)
    return next((str(name) for name in found if name), container.name)


def _networks(container: Container, host: Host, members: Sequence[Membership]) -> list[Network]:
    """The networks that a container is in: by itself, or with the one whose network it shares. The resolver knows that
    one by its address, and asks its servers: who has `dns` of its own asks those.
    """
    if container.drivers.get("network") != SHARING or container[Names].dns:
        return [each.network for each in members]
    app, _, name = shared_by(container).partition("/")
    if app == container.app.name and name in container.app.containers:
        return [each.network for each in memberships(container.app.containers[name], host)]
    return [network for network in all_recorded(host) if _is_in(network, app, name, host)]


def _is_in(network: Network, app: str, name: str, host: Host) -> bool:
    """Whether a container that runs is in a network."""
    directory = f"{network.directory}/{DIRECTORY}"
    for identity in host.look.listdir(directory):
        with suppress(FileNotFoundError, ValueError):
            known = Known.of(host.look.read(f"{directory}/{identity}"))
            if known.app == app and name in known.names:
                return True
    return False


def _resolver(networks: Iterable[Network]) -> str:
    """Where a container reaches the resolver: at the host's own address in the first network that has one of IPv4."""
    gateways = (gateway for network in networks if network.driver == BRIDGE for gateway in network.gateways)
    return next((gateway for gateway in gateways if ":" not in gateway), "")


def _hosts(container: Container, host: Host, hostname: str, members: Sequence[Membership]) -> str:
    """Its own name and those it was given; on the host's network after what the host calls its neighbours."""
    text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    if _on_host(container) and host.look.exists(_HOSTS):
        text = host.look.read(_HOSTS).rstrip("\n") + "\n"
    own = [address for each in members for address in each.addresses] or ["127.0.1.1"]
    lines = [(address, hostname) for address in own]
    for name, word in container[Names].extra_hosts.items():
        lines += [(address, name) for address in _meant(container, host, members, name, word)]
    return text + "".join(f"{address}\t{name}\n" for address, name in lines)


def _meant(container: Container, host: Host, members: Sequence[Membership], name: str, word: str) -> Sequence[str]:
    """The addresses that a line of `extra_hosts` has."""
    if word != HOST_GATEWAY:
        return [word]
    if _on_host(container):
        return ["127.0.0.1"]
    bridged = next((each.network for each in members if each.network.driver == BRIDGE), None)
    if bridged is None:
        message = f"{HOST_GATEWAY}: the container is in no bridged network, where the host would have an address"
        host.complain(Problem(("network", "extra_hosts", name), message))
    return bridged.gateways if bridged else []


def _asking(resolver: str, names: Names, host: Host) -> list[tuple[str, str]]:
    """The resolv.conf(5) of a container that asks the resolver."""
    found = resolvconf.of_container(_read(host, resolvconf.HOST), (resolver,), names.dns_search, names.dns_options)
    return resolvconf.bare_first(found)


def _direct(container: Container, host: Host) -> list[tuple[str, str]]:
    """That of a container that asks servers itself; pasta asks those on the host's loopback for it."""
    names = container[Names]
    lines = _host_lines(host, _on_host(container))
    found = resolvconf.of_container(lines, names.dns, names.dns_search, names.dns_options)
    if container.drivers.get("network") == "pasta" and not any(key == "nameserver" for key, _ in found):
        return [("nameserver", RESOLVER), *found]
    return found


def _text(lines: list[tuple[str, str]]) -> str:
    if not any(key == "nameserver" for key, _ in lines):
        lines = [("#", _NO_SERVER), *lines]
    return "".join(f"{key} {value}\n" for key, value in lines)


def _host_lines(host: Host, reaches_loopback: bool) -> list[tuple[str, str]]:
    """What the first resolv.conf(5) says that names a server which the container can reach; else the very first."""
    found = [
        [line for line in _read(host, path) if reaches_loopback or not _is_loopback(line)] for path in _RESOLV_CONF
    ]
    return next((lines for lines in found if any(key == "nameserver" for key, _ in lines)), found[0])


def _read(host: Host, path: str) -> list[tuple[str, str]]:
    try:
        return list(resolvconf.lines(host.look.read(path)))
    except OSError:
        return []


def _is_loopback(line: tuple[str, str]) -> bool:
    key, value = line
    if key != "nameserver":
        return False
    try:
        return ip_address(value.partition("%")[0]).is_loopback
    except ValueError:
        return True
