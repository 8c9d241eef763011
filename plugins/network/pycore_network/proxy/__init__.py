"""Ports that a socket of the supervisor serves, so that the host's own firewall is asked (``proxy = true``).

The proxy is something that the engine keeps: it serves what operations have written down, and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from pycore.errors import PycoreError
from pycore.hookspecs import Host, Service, hookimpl
from pycore.linux.look import Look
from pycore.ops import Operation

from pycore_network.ops.serve import DIRECTORY, LARGE, Serve, all_in

if TYPE_CHECKING:
    from pycore_network.proxy.relay import Key, Relay, Target


@hookimpl
def pycore_service(host: Host) -> Service:
    return Proxy(host.look, f"{host.run_dir}/{DIRECTORY}")


@hookimpl
def pycore_leftovers(host: Host, known: Collection[Operation]) -> Iterable[Operation]:
    """Files of ports that no container has."""
    return [each for each in all_in(host.look, f"{host.run_dir}/{DIRECTORY}") if each not in known]


class Proxy:
    """The served ports of one run dir."""

    def __init__(self, look: Look, directory: str) -> None:
        self._look, self._directory = look, directory
        self._lock = threading.Lock()
        self._read: dict[str, Serve] = {}
        self._relay: Relay | None = None
        self._failed = False

    def changed(self) -> None:
        """Serve what is written down by now; what could not be had before is tried again."""
        with self._lock:
            names = [name for name in self._look.listdir(self._directory) if not name.endswith(".new")]
            if names == list(self._read) and not self._failed:
                return
            self._read = {name: served for name in names if (served := self._read.get(name) or self._read_file(name))}
            self._serve()

    def close(self) -> None:
        """Let go of all sockets."""
        with self._lock:
            if self._relay:
                self._relay.close()

    def _read_file(self, name: str) -> Serve | None:
        try:
            return Serve.of(self._look.read(f"{self._directory}/{name}", LARGE))
        except (FileNotFoundError, ValueError):  # just taken back; or not ours
            return None

    def _serve(self) -> None:
        from pycore_network.proxy.relay import Relay

        self._relay = self._relay or Relay()
        failed = self._relay.serve(dict(pair for served in self._read.values() for pair in _targets(served)))
        self._failed = bool(failed)
        if failed:
            words = "; ".join(
                f"port {port}/{protocol}: {error.strerror}" for (protocol, _, port), error in failed.items()
            )
            raise PycoreError(f"the proxy cannot serve {words}")


def _targets(served: Serve) -> list[tuple[Key, Target]]:
    from pycore_network.proxy.relay import Target

    return [
        (
            (served.protocol, served.host_ip, served.host_port + step),
            Target(served.address, served.port + step, served.expose, served.allow_from),
        )
        for step in range(served.count)
    ]
