"""What a container is called and how it finds names: /etc/hosts, /etc/hostname, /etc/resolv.conf, for any driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Annotated, ClassVar

import pydantic
from pycore.hookspecs import Host, Service, hookimpl
from pycore.linux.kernel import Kernel
from pycore.ops import Operation
from pycore.spec import Change, Container, Many, Section, Text, setting

from pycore_network.addresses import lease_of
from pycore_network.ops.names import NameFile, NameFiles
from pycore_network.resolver.policy import Free
from pycore_network.resolver.service import ResolverService

_FILES = ("hosts", "hostname", "resolv.conf")

_HOSTS = "/etc/hosts"
_RESOLV_CONF = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""The second is where systemd-resolved lists the servers behind its own (systemd-resolved(8))."""

_NO_SERVER = "the host's name servers listen on its loopback only: set `dns` in [container.NAME.network]"


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def _word(text: str) -> str:
    if not text or any(char.isspace() or char == "#" for char in text):
        raise ValueError("must be one word")
    return text


Address = Annotated[Text, pydantic.AfterValidator(_address)]
Word = Annotated[Text, pydantic.AfterValidator(_word)]


class Names(Section):
    """How a container finds names."""

    table: ClassVar[str] = "container.*.network"

    dns: Many[Address] = setting(
        (),
        doc="Name servers to ask. Without it those of the host, but for servers on the host's loopback, which a "
        "container with a network of its own cannot reach; if that leaves none, it has none.",
        change=Change.RESTART,
        example=["9.9.9.9"],
        flags=("--dns",),
    )
    dns_search: Many[Word] = setting(
        (),
        doc="Domains to search in; without it the host's.",
        change=Change.RESTART,
        example=["example.org"],
        flags=("--dns-search",),
    )
    extra_hosts: dict[Word, Address] = setting(
        {},
        doc="Lines to add to /etc/hosts: name and address.",
        change=Change.RESTART,
        example={"db": "192.0.2.7"},
        flags=("--add-host",),
    )


@hookimpl
def pycore_sections() -> list[type[Section]]:
    return [Names]


@hookimpl
def pycore_service(host: Host, kernel: Kernel) -> Service:
    """The resolver."""
    return ResolverService(host, kernel, Free)


@hookimpl
def pycore_prepare(container: Container, host: Host) -> Iterable[Operation]:
    hostname = _hostname(container)
    resolv_conf = _resolv_conf(container[Names], host, reaches_loopback=_on_host(container))
    return [NameFiles(_directory(container, host), _hosts(container, host, hostname), f"{hostname}\n", resolv_conf)]


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


def _hosts(container: Container, host: Host, hostname: str) -> str:
    """Its own name and those it was given; on the host's network after what the host calls its neighbours."""
    text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    if _on_host(container) and host.look.exists(_HOSTS):
        text = host.look.read(_HOSTS).rstrip("\n") + "\n"
    own = (hostname, lease_of(host, container) or "127.0.1.1")
    return text + "".join(f"{address}\t{name}\n" for name, address in (own, *container[Names].extra_hosts.items()))


def _resolv_conf(names: Names, host: Host, *, reaches_loopback: bool) -> str:
    lines = _host_lines(host, reaches_loopback)
    if names.dns:
        lines = [line for line in lines if line[0] != "nameserver"]
        lines += [("nameserver", address) for address in names.dns]
    if names.dns_search:
        lines = [line for line in lines if line[0] not in ("search", "domain")]
        lines.append(("search", " ".join(names.dns_search)))
    if not any(key == "nameserver" for key, _ in lines):
        lines.insert(0, ("#", _NO_SERVER))
    return "".join(f"{key} {value}\n" for key, value in lines)


def _host_lines(host: Host, reaches_loopback: bool) -> list[tuple[str, str]]:
    """What the first resolv.conf(5) says that names a server which the container can reach; else the very first."""
    found = [
        [line for line in _read(host, path) if reaches_loopback or not _is_loopback(line)] for path in _RESOLV_CONF
    ]
    return next((lines for lines in found if any(key == "nameserver" for key, _ in lines)), found[0])


def _read(host: Host, path: str) -> Iterator[tuple[str, str]]:
    try:
        text = host.look.read(path)
    except OSError:
        return
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key in ("nameserver", "search", "domain", "options") and value.strip():
            yield key, value.strip()


def _is_loopback(line: tuple[str, str]) -> bool:
    key, value = line
    if key != "nameserver":
        return False
    try:
        return ip_address(value.partition("%")[0]).is_loopback
    except ValueError:
        return True
