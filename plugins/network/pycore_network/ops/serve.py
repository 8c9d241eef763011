"""What has a port served by the proxy: a file that names the port and where it leads, which the proxy reads."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pycore.ops import Context, Operation
from pycore.steps import Step

DIRECTORY = "proxy"
"""Of such files, in the run dir."""


@dataclass(frozen=True)
class Serve(Operation):
    """A row of ports of the host that the supervisor serves by sockets of its own.

    The proxy is told when operations have been done, and finds the file (:mod:`pycore_network.proxy.service`).
    """

    step = Step.PUBLISH
    protocol: str
    host_ip: str
    """Empty for all addresses of the host."""
    host_port: int
    address: str
    """The container's."""
    port: int
    count: int
    expose: str
    """``host``, ``lan`` or ``all``."""
    allow_from: tuple[str, ...]
    directory: str
    container: str
    """The id."""
    name: str
    """``APP/NAME``."""

    @classmethod
    def of(cls, text: str) -> Serve:
        """The one that has written a file. Raises ValueError where that is something else."""
        try:
            found: dict[str, Any] = json.loads(text)
            found["allow_from"] = tuple(found["allow_from"])
            return cls(**found)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not what is kept of a served port: {error!r}") from None

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.directory)
        ctx.kernel.replace(self.path, self._text())

    def undo(self, ctx: Context) -> None:
        with suppress(FileNotFoundError):
            ctx.kernel.unlink(self.path)

    @property
    def path(self) -> str:
        """The file, which has another name where anything else is said: a look at the names tells every change."""
        mark = hashlib.sha256(self._text().encode()).hexdigest()[:12]
        return f"{self.directory}/{self.protocol}-{self.host_ip}-{self.host_port}-{mark}"

    def _text(self) -> str:
        return json.dumps(asdict(self))

    def probe(self, ctx: Context) -> bool | None:
        ports = {port for _, port in ctx.kernel.listeners(self.protocol)}
        return ctx.kernel.exists(self.path) and ports.issuperset(range(self.host_port, self.host_port + self.count))

    def explain(self) -> str:
        host, inside = f"{self.host_ip or '*'}:{self.host_port}", f"{self.address}:{self.port}"
        more = f" and the {self.count - 1} after it" if self.count > 1 else ""
        return f"serve {host}/{self.protocol} by a socket of the supervisor, for {inside}{more}"
