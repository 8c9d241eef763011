"""All that is in the nftables tables, kept in the run dir as nft commands: whoever finds them gone makes them anew.

Operations write down what they put in before they do, and take it away after: in files of the directory ``rules`` of a
network, and behind the first line of the file of a port, or of what a container may send to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pycore.linux.kernel import Kernel
from pycore.linux.look import Look

from pycore_network import ruleset
from pycore_network.elements import Element
from pycore_network.ops import egress, rules

RULES = "rules"
"""Of the files that say what was put in for a network or a container's device, in the directory of a network."""
ITSELF = "network"
"""The file of the network itself; the others are named after devices, which all begin otherwise."""
_LARGE = 1 << 20
"""Bytes: more than is in a file; a range of ports has one for each of them."""
_BRIDGE_FILTERS6 = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"


def put_or_make(kernel: Kernel, run_dir: str, table: str, wanted: Sequence[Element]) -> None:
    """Put elements in; where the tables are gone, or those of another version, all that is kept is put in first.

    The caller has the lock of the networks.
    """
    try:
        rules.put(kernel, table, wanted)
    except FileNotFoundError:
        make_anew(kernel, run_dir, table)
        rules.put(kernel, table, wanted)


def make_anew(kernel: Kernel, run_dir: str, table: str) -> None:
    """Make the tables with all that is kept, in one transaction, whatever is left of them.

    The caller has the lock of the networks. Where something kept is no good, all else is put in nevertheless, and
    an OSError is raised.
    """
    ports = f"{run_dir}/ports"
    kernel.mkdir(ports)
    with kernel.locked(ports):
        head = ruleset.delete(table) + ruleset.create(table) + loopback6(kernel, table)
        pieces = list(_pieces(kernel, run_dir, table))
        try:
            kernel.nft(head + "".join(pieces))
        except OSError as error:
            kernel.nft(head)
            _one_by_one(kernel, pieces)
            raise OSError(error.errno, f"not all of the rules could be put back: {error.strerror}") from error


def any_rules(look: Look, run_dir: str, *, but: str = "") -> bool:
    """Whether anything is to be in the tables, but for the network of a directory. Not all networks have rules."""
    places = (f"{run_dir}/networks/{name}" for name in look.listdir(f"{run_dir}/networks"))
    return any(look.exists(f"{place}/{RULES}/{ITSELF}") for place in places if place != but)


def _one_by_one(kernel: Kernel, pieces: Sequence[str]) -> None:
    for piece in pieces:
        try:
            kernel.nft(piece)
        except OSError:
            continue


def _pieces(look: Look, run_dir: str, table: str) -> Iterator[str]:
    from pycore_network.resolver import place

    for network in look.listdir(f"{run_dir}/networks"):
        directory = f"{run_dir}/networks/{network}/{RULES}"
        for name in look.listdir(directory):
            if not name.endswith(".new"):
                yield look.read(f"{directory}/{name}", _LARGE)
    for directory in (f"{run_dir}/ports", f"{run_dir}/{egress.DIRECTORY}"):
        for name in look.listdir(directory):
            if not name.endswith(".new"):
                yield look.read(f"{directory}/{name}", _LARGE).partition("\n")[2]
    port = place.recorded(look, run_dir)
    if port:
        yield ruleset.lead_queries(table, place.ADDRESS, port) + "\n"


def keep(kernel: Kernel, directory: str, name: str, table: str, wanted: Sequence[Element]) -> None:
    """Write down what is about to be put in for a network, given by its directory, or for a device in it."""
    if not is_kept(kernel, directory, name, table, wanted):
        kernel.mkdir(f"{directory}/{RULES}")
        kernel.replace(f"{directory}/{RULES}/{name}", text(table, wanted))


def is_kept(look: Look, directory: str, name: str, table: str, wanted: Sequence[Element]) -> bool:
    """Whether just that is written down."""
    try:
        return look.read(f"{directory}/{RULES}/{name}", _LARGE) == text(table, wanted)
    except FileNotFoundError:
        return False


def drop(kernel: Kernel, directory: str, name: str) -> None:
    """It is not in the tables any more; nothing written down is fine."""
    if kernel.exists(f"{directory}/{RULES}/{name}"):
        kernel.unlink(f"{directory}/{RULES}/{name}")


def text(table: str, wanted: Sequence[Element]) -> str:
    """What is kept of elements. Ports that are put in again have been used, as far as anybody can tell, so they count
    from one.

    A command for each set or map: a thousand commands take nft a second, a thousand elements in one do not.
    """
    by_place: dict[tuple[str, str], list[str]] = {}
    for each in wanted:
        counter = " counter packets 1 bytes 0" if each.value else ""
        who = f' comment "{each.who}"' if each.who else ""
        value = f" : {each.value}" if each.value else ""
        by_place.setdefault((each.family, each.place), []).append(f"{each.key}{counter}{who}{value}")
    commands = (
        f"add element {family} {table} {place} {{ {', '.join(texts)} }}" for (family, place), texts in by_place.items()
    )
    return "\n".join(commands) + "\n"


def answers_loopback6(look: Look) -> bool:
    """Whether answers find back to the host's ``::1``: not where the bridge itself has the rules translate them, for
    such an address is refused of whatever comes in by a device (ip6_rcv_core in net/ipv6/ip6_input.c).
    """
    try:
        return look.read(_BRIDGE_FILTERS6, 8).strip() != "1"
    except FileNotFoundError:
        return True


def loopback6(look: Look, table: str) -> str:
    """Have ports published on ``::1``, or not."""
    return ruleset.serve_loopback6(table, answers_loopback6(look)) + "\n"
