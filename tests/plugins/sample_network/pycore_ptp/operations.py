"""What the driver does, on the host, while the container's process waits."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from pycore import Context, Operation, Step

LOOPBACK, ETH0 = 1, 2
"""Indexes in the container's network namespace: it is new, and loopback is always the first device."""


GONE = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL}
"""What the kernel says when there is nothing to undo: with the container's namespace, all of this goes."""


@dataclass(frozen=True)
class Cable(Operation):
    """A veth pair (veth(4)): ``link`` on the host, eth0 in the container."""

    step = Step.LINK
    link: str

    def do(self, ctx: Context) -> None:
        eth0 = [("IFLA_IFNAME", "eth0"), ("IFLA_NET_NS_PID", ctx.pid)]
        peer = {"attrs": [("VETH_INFO_PEER", {"attrs": eth0})]}
        info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", peer)]}
        names = [("IFLA_IFNAME", self.link), ("IFLA_LINKINFO", info)]
        ctx.kernel.netlink([_request("RTM_NEWLINK", flags=1, change=1, attrs=names)])
        ctx.kernel.netlink([_up(LOOPBACK), _up(ETH0)], ctx.pid)

    def undo(self, ctx: Context) -> None:
        try:
            ctx.kernel.netlink([_request("RTM_DELLINK", attrs=[("IFLA_IFNAME", self.link)])])
        except OSError as error:
            if error.errno not in GONE:
                raise

    def probe(self, ctx: Context) -> bool | None:
        return self.link in ctx.kernel.links()

    def explain(self) -> str:
        return f"link {self.link} <-> eth0 in the container"


@dataclass(frozen=True)
class Addresses(Operation):
    """An address at either end of the cable, and a default route through it."""

    step = Step.LINK
    link: str
    gateway: str
    address: str

    def do(self, ctx: Context) -> None:
        host_end = ctx.kernel.link_index(self.link)
        ctx.kernel.netlink([_address("RTM_NEWADDR", host_end, self.gateway, self.address)])
        ours = _address("RTM_NEWADDR", ETH0, self.address, self.gateway)
        ctx.kernel.netlink([ours, _default_route(self.gateway)], ctx.pid)

    def undo(self, ctx: Context) -> None:
        try:
            host_end = ctx.kernel.link_index(self.link)
            ctx.kernel.netlink([_address("RTM_DELADDR", host_end, self.gateway, self.address)])
            if ctx.pid:
                ctx.kernel.netlink([_address("RTM_DELADDR", ETH0, self.address, self.gateway)], ctx.pid)
        except OSError as error:
            if error.errno not in GONE:
                raise

    def explain(self) -> str:
        return f"address {self.gateway} on {self.link}, {self.address} on eth0 in the container"


def _up(index: int) -> bytes:
    return _request("RTM_SETLINK", index=index, flags=1, change=1)


def _address(kind: str, index: int, local: str, peer: str) -> bytes:
    ends = [("IFA_LOCAL", local), ("IFA_ADDRESS", peer)]
    return _request(kind, family=2, prefixlen=32, index=index, attrs=ends)


def _default_route(gateway: str) -> bytes:
    return _request("RTM_NEWROUTE", family=2, table=254, proto=4, type=1, attrs=[("RTA_GATEWAY", gateway)])


def _request(kind: str, **fields: Any) -> bytes:
    """One netlink request as bytes, rtnetlink(7). pyroute2 is heavy, hence imported only where it is used."""
    from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, rtnl
    from pyroute2.netlink.rtnl import ifaddrmsg, ifinfmsg, rtmsg

    messages = {"ADDR": ifaddrmsg.ifaddrmsg, "LINK": ifinfmsg.ifinfmsg, "OUTE": rtmsg.rtmsg}
    message = messages[kind[-4:]]()
    message.update(fields)
    flags = NLM_F_CREATE | NLM_F_EXCL if kind.startswith("RTM_NEW") else 0
    message["header"].update(type=getattr(rtnl, kind), flags=NLM_F_REQUEST | NLM_F_ACK | flags)
    message.encode()
    return bytes(message.data)
