"""Which containers are in which networks, by the networks' names on the host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pycore.engine import Engine
from pycore.errors import NotFound
from pycore.hookspecs import Host
from pycore.plan import container_of
from pycore.spec import Container

from pycore_network.memberships import Networks, known_memberships
from pycore_network.networks import Network, host_name, recorded


def users(engine: Engine) -> Mapping[str, list[Container]]:
    """Name of a network to the containers that are in it, whether they run or not."""
    found: defaultdict[str, list[Container]] = defaultdict(list)
    for record in engine.containers():
        container = container_of(record, engine.plugins)
        words = container[Networks].attachments() if Networks in container else ()
        for name in {host_name(container.app, word) for word in words}:
            found[name].append(container)
    return found


def find(host: Host, name: str) -> Network:
    """The network of that name. Raises NotFound."""
    network = recorded(host, name)
    if network is None:
        raise NotFound(f"no such network: {name}", hint="pycore network ls lists the ones there are")
    return network


def place_of(host: Host, name: str, container: Container) -> Mapping[str, Any]:
    """How a container is in a network, in plain values."""
    for each in known_memberships(container, host):
        if each.network.name == name:
            return {
                "device": each.device,
                "addresses": list(each.interfaces),
                "mac": each.mac,
                "aliases": list(each.aliases),
            }
    return {}
