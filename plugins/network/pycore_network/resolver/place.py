"""Where the resolver listens: a port of the host's own loopback, which the networks' nftables table leads queries to.

The port is written down in the run dir, for the next engine to take the same, and for whoever makes the table anew.
"""

from __future__ import annotations

import hashlib
import socket
from contextlib import suppress
from pathlib import Path

from pycore.linux.kernel import Kernel
from pycore.linux.look import Look

from pycore_network import ruleset

ADDRESS = "127.0.0.1"
_PORTS = range(914, 953)
"""Ports that nobody is assigned (IANA, Service Name and Transport Protocol Port Number Registry), and that only root
can take: while no engine is there, no other user of the host can answer in its place."""
_SMALL = 16


def path_of(run_dir: str | Path) -> str:
    """The file that says the port."""
    return f"{run_dir}/resolver"


def recorded(look: Look, run_dir: str | Path) -> int:
    """The port at which the resolver listens, or the last one did; 0 where there is none."""
    try:
        return int(look.read(path_of(run_dir), _SMALL))
    except (FileNotFoundError, ValueError):
        return 0


def forget(kernel: Kernel, run_dir: str | Path) -> None:
    """Nobody listens any more; nothing written down is fine."""
    if kernel.exists(path_of(run_dir)):
        kernel.unlink(path_of(run_dir))


def take(kernel: Kernel, run_dir: Path, instance: str) -> tuple[int, socket.socket, socket.socket]:
    """Listen: a port, its UDP socket, its TCP socket. The last one's port where that is free. Raises OSError."""
    first = int.from_bytes(hashlib.sha256(instance.encode()).digest()[:2], "big")
    ours = [_PORTS[(first + step) % len(_PORTS)] for step in range(len(_PORTS))]
    for port in filter(None, (recorded(kernel, run_dir), *ours)):
        with suppress(OSError):
            return _take(kernel, port)
    return _take(kernel, 0)


def _take(kernel: Kernel, port: int) -> tuple[int, socket.socket, socket.socket]:
    udp = kernel.listen(socket.SOCK_DGRAM, ADDRESS, port)
    try:
        port = port or udp.getsockname()[1]
        return port, udp, kernel.listen(socket.SOCK_STREAM, ADDRESS, port)
    except BaseException:
        udp.close()
        raise


def redirect(kernel: Kernel, run_dir: str | Path, table: str) -> None:
    """Lead queries to where the resolver listens, if it does. Where there is no table, whoever makes it does this."""
    port = recorded(kernel, run_dir)
    if port:
        with suppress(FileNotFoundError):
            kernel.nft(ruleset.lead_queries(table, ADDRESS, port))
