"""The resolver as a part of the engine: it begins with the first network, and ends with the last or with the engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel

from pycore_network.resolver import place

if TYPE_CHECKING:
    from pycore_network.resolver.policy import Policy
    from pycore_network.resolver.running import Running


class ResolverService:
    """What the engine tells of changes. Nothing of it is imported or started before there is a network."""

    def __init__(self, host: Host, kernel: Kernel, policy: Callable[[], Policy]) -> None:
        """``policy`` is called when the resolver begins."""
        self._host, self._kernel, self._policy = host, kernel, policy
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._closed = False

    def changed(self) -> None:
        """Begin with the first network, end with the last. Raises PycoreError where no port is to be had."""
        with self._lock:
            if self._closed:
                return
            if not self._kernel.listdir(f"{self._host.run_dir}/networks"):
                self._end()
                place.forget(self._kernel, self._host.run_dir)
            elif self._running:
                self._running.changed()
            else:
                self._begin()

    def _begin(self) -> None:
        host, kernel = self._host, self._kernel
        try:
            port, udp, tcp = place.take(kernel, host.run_dir, host.instance)
        except OSError as error:
            raise PycoreError(f"containers find no names: no port to listen at: {error.strerror or error}") from error
        try:
            kernel.replace(place.path_of(host.run_dir), str(port))
            place.redirect(kernel, host.run_dir, host.instance)
            self._running = self._run(udp, tcp)
        except BaseException as error:
            udp.close()
            tcp.close()
            if isinstance(error, OSError):
                raise PycoreError(f"containers find no names: {error.strerror or error}") from error
            raise

    def _run(self, udp: socket.socket, tcp: socket.socket) -> Running:
        from pycore_network.resolver.running import Running
        from pycore_network.resolver.tables import Tables
        from pycore_network.resolver.upstream import Servers

        run_dir = self._host.run_dir
        return Running(udp, tcp, Tables(run_dir), self._policy(), Servers(run_dir).of)

    def close(self) -> None:
        """End; the port stays written down."""
        with self._lock:
            self._closed = True
            self._end()

    def _end(self) -> None:
        running, self._running = self._running, None
        if running:
            running.end()
