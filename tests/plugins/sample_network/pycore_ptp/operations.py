"""What the driver does, on the host, while the container's process waits."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from pycore import Context, Operation, Step

LOOPBACK, ETH0 = 1, 2
"""Indexes in the container's network namespace: it is new, and loopback is always the first device."""


@dataclass(frozen=True)
class Cable(Operation):
    """A veth pair (veth(4)): ``link`` on the host, eth0 in the container, a route to the other at either end."""

    step = Step.LINK
    link: str
    gateway: str
    address: str

    def do(self, ctx: Context) -> None:
        ctx.kernel.netlink([_veth(self.link, ctx.pid)])
        host_end = int(ctx.kernel.read(f"/sys/class/net/{self.link}/ifindex"))
        ctx.kernel.netlink([_address(host_end, self.gateway, self.address)])
        inside = [_up(LOOPBACK), _up(ETH0), _address(ETH0, self.address, self.gateway), _default_route(self.gateway)]
        ctx.kernel.netlink(inside, ctx.pid)

    def undo(self, ctx: Context) -> None:
        try:
            ctx.kernel.netlink([_request("RTM_DELLINK", attrs=[("IFLA_IFNAME", self.link)])])
        except OSError as error:
            if error.errno != errno.ENODEV:  # with the container's namespace its end went, and ours with it
                raise

    def explain(self) -> str:
        return f"link {self.link} ({self.gateway}) <-> eth0 ({self.address}) in the container"


def _veth(link: str, pid: int) -> bytes:
    peer = {"index": ETH0, "attrs": [("IFLA_IFNAME", "eth0"), ("IFLA_NET_NS_PID", pid)]}
    info = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]
    return _request("RTM_NEWLINK", flags=1, change=1, attrs=[("IFLA_IFNAME", link), ("IFLA_LINKINFO", {"attrs": info})])


def _up(index: int) -> bytes:
    return _request("RTM_SETLINK", index=index, flags=1, change=1)


def _address(index: int, local: str, peer: str) -> bytes:
    ends = [("IFA_LOCAL", local), ("IFA_ADDRESS", peer)]
    return _request("RTM_NEWADDR", family=2, prefixlen=32, index=index, attrs=ends)


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
