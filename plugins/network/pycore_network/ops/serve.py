"""What has a port served by the proxy: a file that names the port and where it leads, which the proxy reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pycore.errors import Conflict
from pycore.linux.look import Look
from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network.ports import overlap

DIRECTORY = "proxy"
"""Of such files, in the run dir."""
LARGE = 1 << 20
"""Bytes: more than a file has."""


def all_in(look: Look, directory: str) -> Iterator[Serve]:
    """What the files of a directory say; what has just gone, or is no such file, is left out."""
    for name in look.listdir(directory):
        with suppress(FileNotFoundError, ValueError):
            yield Serve.of(look.read(f"{directory}/{name}", LARGE))


@dataclass(frozen=True)
class Serve(Operation):
    """A row of ports of the host that the supervisor serves by sockets of its own.

    The proxy is told when operations have been done, and finds the file (:mod:`pycore_network.proxy`).
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
        with ctx.kernel.locked(self.directory):
            for other in all_in(ctx.kernel, self.directory):
                if other.container != self.container and self._meets(other):
                    raise Conflict(f"port {other.host_port}/{other.protocol} of the host leads to {other.name} already")
            with suppress(FileExistsError):  # whose name says that it is the very same
                ctx.kernel.create(self.path, self._text())

    def _meets(self, other: Serve) -> bool:
        """Whether both want a port of the host."""
        apart = self.host_port + self.count <= other.host_port or other.host_port + other.count <= self.host_port
        return self.protocol == other.protocol and not apart and overlap(self.host_ip, other.host_ip)

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
