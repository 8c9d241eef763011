"""Network devices in memory, changed by rtnetlink requests as the kernel would (rtnetlink(7))."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pycore.testing.files import fail

_TABLE_LOCAL = 255
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 21, 24, 25
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400

_IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_PID, _IFLA_GROUP = 3, 5, 10, 18, 19, 27
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_GATEWAY = 1, 5
_IFF_UP = 1

HOST = 0
"""The network namespace of the host, where a process id would stand for another."""

Attributes = dict[int, bytes]


@dataclass
class Link:
    """A network device."""

    name: str
    index: int
    kind: str = ""
    up: bool = False
    master: int = 0
    group: int = 0
    peer: tuple[int, str] | None = None
    """The namespace and name of a veth's other end."""
    addresses: set[str] = field(default_factory=set[str])


@dataclass
class Namespace:
    """What one network namespace holds."""

    links: dict[str, Link] = field(default_factory=dict[str, Link])
    routes: set[str] = field(default_factory=set[str])


class Links:
    """All network namespaces: the host's, and those of processes by their ids."""

    def __init__(self) -> None:
        self.namespaces: dict[int, Namespace] = {}
        self._indexes = itertools.count(2)
        self.open(HOST)
        self.namespaces[HOST].links["lo"].up = True

    def open(self, pid: int, beside: int = 0) -> None:
        """A new network namespace, with ``lo``; or that of another process."""
        self.namespaces[pid] = self.namespaces[beside] if beside else Namespace({"lo": Link("lo", 1, "loopback")})

    def close(self, pid: int) -> None:
        """A process ends, and with the last in it a namespace, the devices there and the other ends of its veths."""
        space = self.namespaces.get(pid)
        other = next((each for each, its in self.namespaces.items() if its is space and each != pid), None)
        if space and other is not None:
            del self.namespaces[pid]
            for link in (link for its in self.namespaces.values() for link in its.links.values()):
                link.peer = (other, link.peer[1]) if link.peer and link.peer[0] == pid else link.peer
            return
        for name in list(space.links) if space else []:
            self._drop(pid, name)
        self.namespaces.pop(pid, None)

    def send(self, messages: Sequence[bytes], pid: int = HOST) -> None:
        """Take requests one by one, as the kernel does: those after one that fails are taken too.

        Raises the OSError of the first that failed.
        """
        errors: list[OSError] = []
        for message in messages:
            try:
                self._take(message, pid)
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def snapshot(self) -> dict[str, object]:
        """The host's devices (kind, whether up, master, group, addresses) and routes, to be compared."""
        host = self.namespaces[HOST]
        names = {link.index: link.name for link in host.links.values()}
        found: dict[str, object] = {
            f"link {link.name}": (link.kind, link.up, names.get(link.master), link.group, sorted(link.addresses))
            for link in host.links.values()
        }
        return found | {f"route {route}": True for route in host.routes}

    def gateways(self, pid: int) -> set[str]:
        """Where the default routes of a process's namespace lead."""
        defaults = [route for route in self.namespaces[pid].routes if route.startswith("default")]
        return {gateway for route in defaults for gateway in (route.split()[2:] or ("0.0.0.0", "::"))}

    # -- one request -------------------------------------------------------------------------------------

    def _take(self, message: bytes, pid: int) -> None:
        if pid not in self.namespaces:
            raise fail(errno.ESRCH, f"/proc/{pid}/ns/net")
        length, kind, flags = struct.unpack_from("=IHH", message)
        body = message[16:length]
        if kind in (_NEWLINK, _DELLINK):
            _, _, index, link_flags, change = struct.unpack_from("=BxHiII", body)
            up = bool(link_flags & _IFF_UP) if change & _IFF_UP else None
            attributes = _attributes(body[16:])
            if kind == _NEWLINK:
                self._new_link(pid, index, up, flags, attributes)
            else:
                self._delete_link(pid, index, attributes)
        elif kind in (_NEWADDR, _DELADDR):
            self._address(kind == _NEWADDR, pid, flags, body)
        elif kind in (_NEWROUTE, _DELROUTE):
            self._route(kind == _NEWROUTE, pid, body)
        else:
            raise fail(errno.EOPNOTSUPP, f"rtnetlink message {kind}")

    def _new_link(self, pid: int, index: int, up: bool | None, flags: int, attributes: Attributes) -> None:
        here, pid = pid, self._place(pid, attributes)
        name = _text(attributes.get(_IFLA_IFNAME, b""))
        link = self.namespaces[pid].links.get(name) or self._by_index(pid, index)
        if link is None:
            if _IFLA_LINK in attributes and self._by_index(here, _number(attributes[_IFLA_LINK])) is None:
                raise fail(errno.ENODEV, name)
            if not flags & _CREATE:
                raise fail(errno.ENODEV, name)
            link = self._create(pid, name, index, attributes)
        elif flags & _EXCL:
            raise fail(errno.EEXIST, name)
        if _IFLA_MASTER in attributes:
            link.master = _number(attributes[_IFLA_MASTER])
            if link.master and self._by_index(pid, link.master) is None:
                raise fail(errno.ENODEV, name)
        if _IFLA_GROUP in attributes:
            link.group = _number(attributes[_IFLA_GROUP])
        link.up = link.up if up is None else up

    def _create(self, pid: int, name: str, index: int, attributes: Attributes) -> Link:
        info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
        link = Link(name, index or next(self._indexes), _text(info.get(_INFO_KIND, b"")))
        if link.kind == "veth":
            self._create_peer(pid, link, _attributes(info.get(_INFO_DATA, b"")).get(_VETH_INFO_PEER, b""))
        self.namespaces[pid].links[name] = link
        return link

    def _create_peer(self, pid: int, link: Link, peer: bytes) -> None:
        attributes = _attributes(peer[16:])
        name = _text(attributes.get(_IFLA_IFNAME, b""))
        place = self._place(pid, attributes)
        if name in self.namespaces[place].links:
            raise fail(errno.EEXIST, name)
        other = Link(name, next(self._indexes), "veth", peer=(pid, link.name))
        other.group = _number(attributes.get(_IFLA_GROUP, b"\0\0\0\0"))
        self.namespaces[place].links[name] = other
        link.peer = (place, name)

    def _place(self, pid: int, attributes: Attributes) -> int:
        """The namespace that a device is made in: where the request comes from, or that of a process."""
        if _IFLA_NET_NS_PID not in attributes:
            return pid
        owner = _number(attributes[_IFLA_NET_NS_PID])
        return owner if owner in self.namespaces else HOST  # a thread of the host that no test made

    def _delete_link(self, pid: int, index: int, attributes: Attributes) -> None:
        links = self.namespaces[pid].links
        if _IFLA_GROUP in attributes:
            group = _number(attributes[_IFLA_GROUP])
            chosen = [link.name for link in links.values() if link.group == group]
        else:
            name = _text(attributes.get(_IFLA_IFNAME, b""))
            link = links.get(name) or self._by_index(pid, index)
            chosen = [link.name] if link else []
        if not chosen:
            raise fail(errno.ENODEV, _text(attributes.get(_IFLA_IFNAME, b"")))
        for name in chosen:
            self._drop(pid, name)

    def _drop(self, pid: int, name: str) -> None:
        link = self.namespaces[pid].links.pop(name, None)
        if link is None:
            return
        for other in self.namespaces[pid].links.values():
            other.master = 0 if other.master == link.index else other.master
        if link.peer and link.peer[0] in self.namespaces:
            self._drop(*link.peer)

    def _address(self, add: bool, pid: int, flags: int, body: bytes) -> None:
        _, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
        attributes = _attributes(body[8:])
        link = self._by_index(pid, index)
        if link is None:
            raise fail(errno.ENODEV, f"device {index}")
        address = f"{_address(attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS])}/{prefix}"
        if add and address in link.addresses and not flags & _REPLACE:
            raise fail(errno.EEXIST, address)
        if not add and address not in link.addresses:
            raise fail(errno.EADDRNOTAVAIL, address)
        (link.addresses.add if add else link.addresses.discard)(address)

    def _route(self, add: bool, pid: int, body: bytes) -> None:
        if body[4] == _TABLE_LOCAL:  # what is this host's own goes with its device
            return
        attributes = _attributes(body[12:])
        target = f"{_address(attributes[_RTA_DST])}/{body[1]}" if _RTA_DST in attributes else "default"
        gateway = f" via {_address(attributes[_RTA_GATEWAY])}" if _RTA_GATEWAY in attributes else ""
        routes = self.namespaces[pid].routes
        if not add and target + gateway not in routes:
            raise fail(errno.ESRCH, target)
        (routes.add if add else routes.discard)(target + gateway)

    def _by_index(self, pid: int, index: int) -> Link | None:
        found = (link for link in self.namespaces[pid].links.values() if index and link.index == index)
        return next(found, None)


def _attributes(data: bytes) -> Attributes:
    return dict(_each_attribute(data))


def _each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each struct rtattr; the two high bits of a type say only how it is encoded."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[max(4, (length + 3) & ~3) :]


def _text(data: bytes) -> str:
    return os.fsdecode(data.rstrip(b"\0"))


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little" if struct.pack("=H", 1)[0] else "big")


def _address(data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)
