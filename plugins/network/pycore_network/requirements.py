"""What the network drivers need of the host, for ``pycore doctor``."""

from __future__ import annotations

from collections.abc import Iterator

from pycore.errors import Problem
from pycore.hookspecs import Host, Requirement
from pycore.linux import nftables
from pycore.linux.look import Look

from pycore_network.hostfirewall import questions
from pycore_network.hostfirewall.questions import Port
from pycore_network.hostfirewall.ruleset import read
from pycore_network.hostfirewall.ways import ways


def net_admin(look: Look) -> Requirement:
    """The power to make network devices."""
    return Requirement(
        "the capability CAP_NET_ADMIN",
        met=look.owns_network(),
        why="network devices and addresses cannot be made",
        mend="sudo pycore ...",
    )


def object_without_power(host: Host) -> None:
    """A problem where nobody may make devices: for a normal user."""
    if not host.look.owns_network():
        message = "networks of the host's own need power over its network, which this user has not"
        problem = Problem(("network", "driver"), message, 'network = "pasta", or sudo pycore ...')
        host.complain(problem)


def libnftables() -> Requirement:
    """The library behind published ports."""
    return Requirement(
        nftables.LIBRARY, nftables.available(), "no port can be published, no way out of a network", nftables.MEND
    )


def forwarding(look: Look) -> Requirement:
    """That no other firewall drops what is forwarded: an accept in one table does not keep a second from dropping.

    What nobody may ask, for want of the library or of power, counts as fine.
    """
    rules, bridge = read(look, {}), "pc-"
    outcomes = [
        outcome
        for version in (4, 6)
        for way in ways(look, version)
        for outcome in (
            questions.into_container(rules, Port(version, "tcp", 443), way.device, bridge),
            questions.out_of_container(rules, version, bridge, way.device),
        )
    ]
    places = list(questions.dropped(outcomes))
    where = f": {'; '.join(questions.place_words(look, place) for place in places)}" if places else ""
    return Requirement(
        "other firewalls let forwarded packets through",
        met=not places,
        why=f"published ports answer this host alone, or containers have no way out{where}",
        mend=" && ".join(questions.letting_through(place) for place in places),
    )


_MODULES = {
    "bridge": "the driver bridge cannot link containers",
    "veth": "the driver bridge cannot link containers",
    "nf_conntrack_netlink": "connections by way of a port that has moved, or that `egress` allows no more, are not cut",
}
"""What does not work without each."""


def modules(look: Look) -> Iterator[Requirement]:
    """Modules of the kernel, loaded, built in, or there to be loaded when first used."""
    for name, why in _MODULES.items():
        yield Requirement(
            f"the kernel module {name}",
            met=look.is_dir(f"/sys/module/{name}") or _can_be_loaded(look, name),
            why=why,
            mend=f"modprobe {name} || apt-get install linux-modules-extra-$(uname -r)",
        )


def _can_be_loaded(look: Look, name: str) -> bool:
    """Whether the kernel's lists name it. A kernel without any lists was built whole, so it is taken to have it."""
    try:
        place = f"/lib/modules/{look.read('/proc/sys/kernel/osrelease').strip()}"
    except OSError:
        return True
    lists = [f"{place}/{file}" for file in ("modules.builtin", "modules.dep")]
    present = [path for path in lists if look.exists(path)]
    return not present or any(f"/{name}.ko" in look.read(path, 64 << 20) for path in present)
