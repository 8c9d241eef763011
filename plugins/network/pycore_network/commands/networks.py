"""The verbs of ``network``, and ``port``: which there are, and what each takes."""

from __future__ import annotations

import argparse

from pycore.cli.parser import Verb
from pycore.engine import Engine

from pycore_network.commands.connecting import connect, disconnect
from pycore_network.commands.egressing import egress
from pycore_network.commands.explaining import explain
from pycore_network.commands.listing import inspect, listing
from pycore_network.commands.making import create, prune, remove
from pycore_network.commands.ports import port


def verbs(verb: Verb, engine: Engine) -> None:
    """Add them, by both names of the family."""
    verb("network", None, "networks that containers are in")
    verb("net", None, "")
    for family in ("network", "net"):
        _looking(verb, family)
        _changing(verb, family)
    published = verb("port", port, "list where the ports of a container are on the host")
    published.add_argument("container", metavar="CONTAINER")
    published.add_argument("port", metavar="PORT[/PROTOCOL]", nargs="?", help="this one of the container's alone")


def _looking(verb: Verb, family: str) -> None:
    found = verb(f"{family} ls", listing, "list networks")
    found.add_argument("-q", "--quiet", action="store_true", help="names only")
    found.add_argument(
        "-f", "--filter", metavar="KEY=VALUE", action="append", default=[],
        help="only those with this name, driver, label, or dangling=true: that no container is in",
    )  # fmt: skip
    found.add_argument("--no-trunc", action="store_true", help="whole lines in a terminal")
    told = verb(f"{family} inspect", inspect, "tell all about networks, and who is in them")
    told.add_argument("names", metavar="NETWORK", nargs="+")
    for each in (found, told):
        each.add_argument("--format", choices=("json",), help="the same as --json")
    way = verb(f"{family} explain", explain, "say which rules let packets to a port in, or not, and from where")
    way.add_argument("port", metavar="PORT[/PROTOCOL]")
    sent = verb(f"{family} egress", egress, "say what a container may send to, and whom it was denied to reach")
    sent.add_argument("container", metavar="CONTAINER")


def _changing(verb: Verb, family: str) -> None:
    made = verb(f"{family} create", create, "make a network that outlives containers and boots")
    made.add_argument("-d", "--driver", default="bridge", help="bridge unless said otherwise")
    made.add_argument(
        "--subnet", metavar="CIDR", action="append", default=[], help="one of IPv4, one of IPv6; or free ones"
    )
    made.add_argument("--gateway", metavar="ADDRESS", action="append", default=[], help="the first of the subnet")
    made.add_argument("--internal", action="store_true", help="without a way out, and without published ports")
    made.add_argument("--ipv6", action=argparse.BooleanOptionalAction, help="as the host has it unless said")
    made.add_argument("--label", metavar="KEY=VALUE", action="append", default=[], help="a word for people")
    made.add_argument(
        "-o", "--opt", metavar="KEY=VALUE", action="append", default=[],
        help="mtu, isolated, or what the driver has: parent, mode",
    )  # fmt: skip
    made.add_argument("name", metavar="NETWORK")
    joined = verb(f"{family} connect", connect, "have a container in one more network, while it runs")
    joined.add_argument("--ip", metavar="ADDRESS", help="its address there; a free one unless said otherwise")
    joined.add_argument("--ip6", metavar="ADDRESS", help="the same of IPv6")
    joined.add_argument("--alias", metavar="NAME", action="append", default=[], help="one more name for it there")
    left = verb(f"{family} disconnect", disconnect, "have a container in a network no more")
    left.add_argument("-f", "--force", action="store_true", help="one that is not in it is fine")
    for each in (joined, left):
        each.add_argument("network", metavar="NETWORK")
        each.add_argument("container", metavar="CONTAINER")
    gone = verb(f"{family} rm", remove, "remove networks that `network create` has made")
    gone.add_argument("-f", "--force", action="store_true", help="one that is not there is fine")
    gone.add_argument("names", metavar="NETWORK", nargs="+")
    swept = verb(f"{family} prune", prune, "list networks that no container is in; with --force, remove them")
    swept.add_argument("-f", "--force", action="store_true", help="remove them")
