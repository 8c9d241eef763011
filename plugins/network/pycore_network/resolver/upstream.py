"""Who is asked for what is not known here: the servers of a container's spec, or those that the host asks itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycore_network import resolvconf

PORT = 53
FILE = "servers"
"""What a container's own servers are written down in, in the directory of its name files: one a line."""
_MOST = 8
"""Servers that are asked at all; the C library asks three."""
_NOBODY = ("127.0.0.1",)
"""Whom the C library asks where the file names nobody."""

Server = tuple[Any, ...]
"""Where a server is, as sockets have it: address and port, for IPv6 also flow and scope."""


class Servers:
    """Whom to ask for a container."""

    def __init__(self, run_dir: Path, host: HostServers | None = None) -> None:
        self._run_dir, self._host = run_dir, host or HostServers()

    def of(self, container: str) -> Sequence[Server]:
        """Of a container, given by its id. An operation has written down the servers of its spec, where it has any."""
        try:
            own = Path(f"{self._run_dir}/containers/{container}/names/{FILE}").read_text().split()
        except OSError:
            own = []
        return servers(own) if own else self._host.now()


class HostServers:
    """The host's servers. The file is looked at each time that somebody wants to know: one system call."""

    def __init__(self, path: str = resolvconf.HOST) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._servers: list[Server] = servers(_NOBODY)

    def now(self) -> list[Server]:
        """In the order in which they are to be asked."""
        try:
            found = os.stat(self._path)
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                text = Path(self._path).read_text("utf-8", "replace")
                named = [value for key, value in resolvconf.lines(text) if key == "nameserver"]
                self._servers, self._stamp = servers(named or _NOBODY), stamp
        except OSError:  # it is just being replaced, or gone: those that it named last are as good as any
            pass
        return self._servers


def servers(addresses: Sequence[str]) -> list[Server]:
    """Where servers with these addresses are; what is no address of this host's kinds is left out."""
    found: list[Server] = []
    for address in addresses[:_MOST]:
        try:
            told = socket.getaddrinfo(address, PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            continue
        found.append(told[0][4])
    return found
