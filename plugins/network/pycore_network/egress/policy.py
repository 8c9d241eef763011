"""What bound containers may ask the resolver, and how what they are answered becomes what they may send to."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from pycore.linux.kernel import Kernel

from pycore_network.egress.entries import is_called
from pycore_network.elements import Element
from pycore_network.ops import rules
from pycore_network.ops.egress import DIRECTORY, AllowName, AllowNetwork, Bind, read

GRACE = 30
"""Seconds for which an address may be used when its answer has become too old: who has just read it connects then."""
LONGEST = 86400
"""Seconds for which an answer counts at most."""
MOST = 4096
"""Addresses, each with a port, that one container may have learned at once: whoever answers for a name may not fill the
kernel's memory."""


@dataclass
class _Bound:
    """A container."""

    allowed: list[AllowName] = field(default_factory=list[AllowName])
    until: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """Set and key of what was learned to the time at which the kernel lets go of it."""

    def forget_old(self, now: float) -> None:
        self.until = {key: until for key, until in self.until.items() if until > now}


class Egress:
    """The policy of a run dir. For the resolver's thread alone."""

    def __init__(self, kernel: Kernel, run_dir: str, table: str) -> None:
        self._kernel, self._table = kernel, table
        self._directory = f"{run_dir}/{DIRECTORY}"
        self._read: dict[str, Bind | AllowNetwork | AllowName | None] = {}
        """By the name of its file, which tells what it says."""
        self._bound: dict[str, _Bound] = {}
        """By the container's id."""
        self._failed = False

    def renew(self) -> None:
        """Look at what is written down. What was learned may be gone with an entry, so that with any change it is
        forgotten, and put in again as it is asked for.
        """
        names = [name for name in self._kernel.listdir(self._directory) if not name.endswith(".new")]
        if names == list(self._read):
            return
        known, self._read = self._read, {}
        for name in names:
            self._read[name] = known[name] if known.get(name) else read(self._kernel, f"{self._directory}/{name}")
        self._bound = {}
        for each in filter(None, self._read.values()):
            bound = self._bound.setdefault(each.container, _Bound())
            if isinstance(each, AllowName):
                bound.allowed.append(each)

    def binds(self, container: str) -> bool:
        """Whether it has an egress."""
        return container in self._bound

    def may_ask(self, container: str, name: str) -> bool:
        """Whether an entry means the name."""
        return any(is_called(each.host, name) for each in self._bound[container].allowed)

    def answered(self, container: str, name: str, addresses: Sequence[str], ttl: int) -> None:
        """Allow what entries say of the name, at these addresses."""
        bound, now = self._bound[container], time.monotonic()
        seconds = min(max(ttl, 1), LONGEST)
        allowed = [each for each in bound.allowed if is_called(each.host, name)]
        wanted = [
            element
            for address in addresses
            if _is_of_somebody(address)
            for each in allowed
            for element in each.learned(address)
            if bound.until.get((element.place, element.key), 0.0) < now + seconds
        ]
        if len(bound.until) + len(wanted) > MOST:
            bound.forget_old(now)
            wanted = wanted[: MOST - len(bound.until)]
        self._put(bound, wanted, now, seconds + GRACE)

    def _put(self, bound: _Bound, wanted: Iterable[Element], now: float, seconds: int) -> None:
        elements = list(wanted)
        try:
            rules.renew(self._kernel, self._table, elements, seconds)
        except OSError as error:  # then nothing is allowed; the next answer tries again
            if not self._failed:
                self._failed = True
                sys.stderr.write(f"pycore: an answer could not be allowed: {error.strerror or error}\n")
            return
        bound.until |= {(each.place, each.key): now + seconds for each in elements}


def _is_of_somebody(text: str) -> bool:
    """Whether an address can be that of a host elsewhere: whoever answers for a name must not open the way to what is
    beside the container, as the metadata service of a cloud is.
    """
    address = ip_address(text)
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)
