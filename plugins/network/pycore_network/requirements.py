"""What the network drivers need of the host, for ``pycore doctor``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pycore.hookspecs import Requirement
from pycore.linux import nftables
from pycore.linux.look import Look

_CAP_NET_ADMIN = 12
_DROPS = re.compile(r"hook forward priority [^;]*; policy drop;")


def net_admin(look: Look) -> Requirement:
    """The power to make network devices."""
    return Requirement(
        "the capability CAP_NET_ADMIN",
        met=bool(look.capabilities() >> _CAP_NET_ADMIN & 1),
        why="network devices and addresses cannot be made",
        mend="sudo pycore ...",
    )


def libnftables() -> Requirement:
    """The library behind published ports."""
    return Requirement(
        nftables.LIBRARY, nftables.available(), "no port can be published, no way out of a network", nftables.MEND
    )


def forwarding() -> Requirement:
    """That no other firewall drops what is forwarded: an accept in one table does not keep a second from dropping."""
    return Requirement(
        "other firewalls let forwarded packets through",
        met=not _dropping(),
        why="published ports answer this host alone, and containers have no way out",
        mend="iptables -I FORWARD -i 'pc-+' -j ACCEPT && iptables -I FORWARD -o 'pc-+' -j ACCEPT",
    )


def _dropping() -> bool:
    """Whether a chain (Docker's, ufw's) drops by default what is forwarded, and no rule of ours is in its table.

    What nobody may ask, for want of the library or of power, counts as fine.
    """
    try:
        chains = nftables.listing("chains ip")
        if not _DROPS.search(chains):
            return False
        return '"pc-*"' not in nftables.listing("table ip filter")
    except OSError:
        return False


def modules(look: Look) -> Iterator[Requirement]:
    """The kernel's bridge and veth, loaded, built in, or there to be loaded when first used."""
    for name in ("bridge", "veth"):
        yield Requirement(
            f"the kernel module {name}",
            met=look.is_dir(f"/sys/module/{name}") or _can_be_loaded(look, name),
            why="the driver bridge cannot link containers",
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
