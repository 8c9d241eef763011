"""What a container may send to: elements that say so, and files that tell the resolver which names it may ask for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from pycore.linux.look import Look
from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network.ops import rules
from pycore_network.ops.lease import concerning

if TYPE_CHECKING:
    from pycore_network.elements import Element

DIRECTORY = "egress"
"""Of a file for each such operation, in the run dir."""
LARGE = 1 << 16
"""Bytes: more than such a file has."""
_COMMENT = 110
"""Characters of a container's name that stand beside a learned address: with what follows, nft takes 128 bytes."""


@dataclass(frozen=True)
class _Egress(Operation):
    """A part of what a container may send to; all parts of one live and die by themselves, so that a change of one
    leaves the others as they are.
    """

    step = Step.NETWORK
    directory: str
    table: str
    container: str
    """The id."""
    name: str
    """``APP/NAME``."""
    addresses: tuple[str, ...]
    """The container's."""

    def depth(self) -> int:
        return 1  # the network makes the tables

    def elements(self) -> list[Element]:
        """What is put into the tables."""
        raise NotImplementedError

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.directory)
        with ctx.kernel.locked(self._networks), concerning(self.path):
            ctx.kernel.replace(self.path, self._text())
            rules.put(ctx.kernel, self.table, self.elements())

    def undo(self, ctx: Context) -> None:
        with concerning(self.path):
            if ctx.kernel.exists(self._networks):
                with ctx.kernel.locked(self._networks):
                    rules.withdraw(ctx.kernel, self.table, self.put_in(ctx))
            if ctx.kernel.exists(self.path):
                ctx.kernel.unlink(self.path)

    def put_in(self, ctx: Context) -> list[Element]:
        """What is to be taken out of the tables with it."""
        return self.elements()

    def probe(self, ctx: Context) -> bool | None:
        try:
            is_kept = ctx.kernel.read(self.path, LARGE) == self._text()
        except FileNotFoundError:
            return False
        return is_kept and rules.in_force(ctx.kernel, self.table, self.elements())

    @property
    def path(self) -> str:
        """Its file, which has another name where anything else is said: a look at the names tells every change."""
        return f"{self.directory}/{self.container}-{self.mark}"

    @property
    def mark(self) -> str:
        """What tells it from others."""
        return hashlib.sha256(self._line().encode()).hexdigest()[:12]

    @property
    def _networks(self) -> str:
        return f"{self.directory.rpartition('/')[0]}/networks"

    def _line(self) -> str:
        return json.dumps({"kind": type(self).__name__, **asdict(self)})

    def _text(self) -> str:
        from pycore_network.ops import kept

        return f"{self._line()}\n{kept.text(self.table, self.elements()) if self.elements() else ''}"


@dataclass(frozen=True)
class Bind(_Egress):
    """Nothing leaves a container's device any more but what is allowed, and answers.

    It is in force before the device is there, and stays through restarts.
    """

    device: str
    """The host's end."""

    def elements(self) -> list[Element]:
        from pycore_network.elements import BRIDGE, Element

        return [Element(BRIDGE, "bound", f'"{self.device}"', who=self.name)]

    def explain(self) -> str:
        return f"bind {self.device}: nothing leaves it but what is allowed; nft table bridge {self.table}"


@dataclass(frozen=True)
class AllowNetwork(_Egress):
    """Ports of all addresses in a network."""

    network: str
    protocol: str
    """Empty for all there are."""
    first: int
    last: int

    def elements(self) -> list[Element]:
        from pycore_network.elements import BRIDGE, Element

        place = ("allowed6" if ":" in self.network else "allowed") + ("" if self.protocol else "_any")
        ports = f" . {self.protocol} . {_row(self.first, self.last)}" if self.protocol else ""
        own = [each for each in self.addresses if (":" in each) == (":" in self.network)]
        return [Element(BRIDGE, place, f"{address} . {_bare(self.network)}{ports}", who=self.name) for address in own]

    @property
    def words(self) -> str:
        """As the spec might have it."""
        return _words(_bare(self.network), self)

    def explain(self) -> str:
        return f"allow {self.words} to {self.name}"


@dataclass(frozen=True)
class AllowName(_Egress):
    """Ports of the addresses that a name turns out to have: the resolver puts them in when it answers, for as long as
    the answer may be remembered (:mod:`pycore_network.egress.policy`).
    """

    host: str
    """A name, or ``*.`` and one for all below it."""
    protocol: str
    """Empty for all there are."""
    first: int
    last: int

    def elements(self) -> list[Element]:
        return []

    def learned(self, address: str) -> list[Element]:
        """What allows an address that the name has."""
        from pycore_network.elements import BRIDGE, Element

        place = ("learned6" if ":" in address else "learned") + ("" if self.protocol else "_any")
        ports = [f" . {self.protocol} . {port}" for port in range(self.first, self.last + 1)] if self.protocol else [""]
        own = [each for each in self.addresses if (":" in each) == (":" in address)]
        return [Element(BRIDGE, place, f"{each} . {address}{port}", who=self._who) for each in own for port in ports]

    @property
    def _who(self) -> str:
        return f"{self.name[:_COMMENT]} {self.mark}"

    @property
    def words(self) -> str:
        """As the spec might have it."""
        return _words(self.host, self)

    def learned_now(self, look: Look) -> list[Element]:
        """What was learned and may be used still."""
        from pycore_network.elements import BRIDGE, Element
        from pycore_network.ruleset import LEARNED

        return [
            Element(BRIDGE, place, " . ".join(values), who=comment)
            for place in LEARNED
            for values, comment in _listed(look, self.table, place)
            if comment == self._who
        ]

    def put_in(self, ctx: Context) -> list[Element]:
        return self.learned_now(ctx.kernel)

    def explain(self) -> str:
        return f"allow {self.words} to {self.name}, whatever its addresses turn out to be"


@dataclass(frozen=True)
class Judge(Operation):
    """Let no connection go on that a container has begun and may not any more, once what is allowed has changed.

    An address that it gets may also have been another's, with connections of its own.
    """

    step = Step.NETWORK
    table: str
    name: str
    """``APP/NAME``."""
    addresses: tuple[str, ...]
    """The container's."""
    entries: tuple[str, ...]
    """All that is allowed to it, as the spec has it."""

    def depth(self) -> int:
        return 1

    def do(self, ctx: Context) -> None:
        with concerning(self.name):
            allows = self._allows(ctx.kernel)
            for address in self.addresses:
                known = ctx.kernel.flows_from(address)
                ctx.kernel.forget_flows([
                    flow for flow in known if not allows(address, flow.destination, flow.protocol, flow.port)
                ])  # fmt: skip

    def _allows(self, look: Look) -> _Allows:
        from pycore.linux.conntrack import PROTOCOLS

        from pycore_network.egress.entries import parse
        from pycore_network.ruleset import LEARNED

        rows = [(row, [ip_network(text) for text in row.networks]) for row in map(parse, self.entries)]
        learned = {tuple(values) for place in LEARNED for values, _ in _listed(look, self.table, place)}
        words = {number: word for word, number in PROTOCOLS.items()}

        def allows(source: str, destination: str, protocol: int, port: int) -> bool:
            word = words.get(protocol, "")
            if {(source, destination), (source, destination, word, str(port))} & learned:
                return True
            address = ip_address(destination)
            return any(
                address in network
                for row, networks in rows
                if row.protocol in ("", word) and row.ports[0] <= port <= row.ports[1]
                for network in networks
            )

        return allows

    def explain(self) -> str:
        return f"let connections of {self.name} go on that are allowed, and no others"


_Allows = Callable[[str, str, int, int], bool]
"""Whether it may go from an address to another, by the number of a protocol, to a port."""


def all_in(look: Look, directory: str) -> Iterator[Bind | AllowNetwork | AllowName]:
    """What the files of a directory say; what has just gone, or is no such file, is left out."""
    for name in look.listdir(directory):
        found = read(look, f"{directory}/{name}")
        if found:
            yield found


def read(look: Look, path: str) -> Bind | AllowNetwork | AllowName | None:
    """What a file says; None where it is gone, or no such file."""
    try:
        found: dict[str, Any] = json.loads(look.read(path, LARGE).partition("\n")[0])
        kind = _KINDS[found.pop("kind")]
        found["addresses"] = tuple(found["addresses"])
        return kind(**found)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


_KINDS: dict[str, type[Bind | AllowNetwork | AllowName]] = {
    kind.__name__: kind for kind in (Bind, AllowNetwork, AllowName)
}


def _row(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _bare(network: str) -> str:
    """As nft lists it: one address alone has no prefix."""
    address, _, length = network.partition("/")
    return address if length == ("128" if ":" in address else "32") else network


def _words(host: str, allowed: AllowNetwork | AllowName) -> str:
    where = f"[{host}]" if ":" in host else host
    return f"{where}:{_row(allowed.first, allowed.last)}/{allowed.protocol}" if allowed.protocol else f"{where}:*"


def _listed(look: Look, table: str, place: str) -> Iterator[tuple[list[str], str]]:
    """The values of each element's key, and its comment; nothing where the tables are gone, or the library."""
    from pycore_network.elements import BRIDGE

    try:
        found = json.loads(look.nft_contents(f"{BRIDGE} {table}", place))
    except OSError:
        return
    for element in (each["elem"] for entry in found["nftables"] for each in entry.get("set", {}).get("elem", ())):
        yield [str(value) for value in element["val"]["concat"]], element.get("comment", "")
