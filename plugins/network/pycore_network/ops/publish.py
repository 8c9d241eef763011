"""Published ports on the host: the elements that lead them to a container, and the files that say whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pycore.errors import Conflict
from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network.ops import rules
from pycore_network.ops.lease import concerning
from pycore_network.ports import Ports, version_of

if TYPE_CHECKING:
    from pycore_network.elements import Element

_SMALL = 256
"""Bytes: more than the first line of a port's file has."""
_FEW = 16
_CONNECTIONLESS = ("udp", "sctp")
"""Protocols of which a client goes on sending from the same port, whoever is at the other end."""


@dataclass(frozen=True)
class Publish(Operation):
    """Ports of the host that lead to the container: an element of a map each, or a few where not everybody may come.

    A file for each port says whose it is; it can be made only once, so two containers never share one. What was put in
    stands below that, for whoever makes the tables anew. Who was led elsewhere before, or is led to the container
    when the port is taken back, is forgotten by the kernel; nobody else is.
    """

    step = Step.PUBLISH
    protocol: str
    host_ip: str
    host_port: int
    port: int
    count: int
    expose: str
    allow_from: tuple[str, ...]
    addresses: tuple[str, ...]
    """The container's, of each family at most one."""
    directory: str
    table: str
    container: str
    """The id."""
    name: str
    """``APP/NAME``."""

    @property
    def ports(self) -> Ports:
        """What is published."""
        return Ports(
            self.protocol, self.host_ip, self.host_port, self.port, self.count, self.expose, self.allow_from
        )  # fmt: skip

    def elements(self) -> list[Element]:
        """What is put into the tables."""
        from pycore_network.elements import of_ports

        return list(of_ports(self.ports, self.addresses, self.name))

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.directory)
        with ctx.kernel.locked(self.directory), concerning(self._words):
            for path, text in self._files().items():
                self._reserve(ctx, path, text)
            rules.put(ctx.kernel, self.table, self.elements())
            if self.protocol in _CONNECTIONLESS:
                self._forget(ctx, theirs=False)

    def undo(self, ctx: Context) -> None:
        if not ctx.kernel.exists(self.directory):
            return
        with ctx.kernel.locked(self.directory), concerning(self._words):
            ours = [path for path in self._files() if self._holder(ctx, path)[0] == self.container]
            if not ours:
                return
            used = self._is_used(ctx)
            rules.withdraw(ctx.kernel, self.table, self.elements())
            if used:
                self._forget(ctx, theirs=True)
            for path in ours:
                ctx.kernel.unlink(path)

    def _is_used(self, ctx: Context) -> bool:
        """Whether anybody has come by way of the ports: to look for connections takes the kernel ten milliseconds.

        To ask for each of many ports would take longer.
        """
        elements = self.elements()
        try:
            return len(elements) > _FEW or rules.is_used(ctx.kernel, self.table, elements)
        except OSError:
            return True

    def _forget(self, ctx: Context, *, theirs: bool) -> None:
        """Forget connections by way of the ports: those that the container answers, or those of anybody else."""
        row = (self.host_port, self.host_port + self.count - 1)
        for version in {version_of(address) for address in self.addresses}.intersection(self.ports.versions):
            ctx.kernel.forget_flows([
                flow
                for flow in ctx.kernel.flows(self.protocol, row, version)
                if (flow.answers in self.addresses) == theirs and (theirs or self._is_ours(ctx, flow.destination))
            ])  # fmt: skip

    def _is_ours(self, ctx: Context, destination: str) -> bool:
        return destination == self.host_ip if self.ports.one_address else ctx.kernel.is_local(destination)

    @property
    def _words(self) -> str:
        return f"port {self.host_port}/{self.protocol}"

    def _reserve(self, ctx: Context, path: str, text: str) -> None:
        try:
            ctx.kernel.create(path, text)
        except FileExistsError:
            holder, name = self._holder(ctx, path)
            if holder != self.container:
                port = path.rpartition("-")[2]
                raise Conflict(f"port {port}/{self.protocol} of the host leads to {name} already") from None
            ctx.kernel.unlink(path)  # not replaced: that would wait for the lock that we have
            ctx.kernel.create(path, text)

    def _holder(self, ctx: Context, path: str) -> tuple[str, str]:
        """Id and name of the container that a port belongs to; empty where it is free."""
        try:
            return holder_of(ctx.kernel.read(path, _SMALL))
        except FileNotFoundError:
            return "", ""

    def _files(self) -> dict[str, str]:
        """Path to text. What is kept of the rules stands in the first."""
        from pycore_network.ops import kept

        first = f"{self.container} {self.name}\n"
        texts = {f"{self.directory}/{name}": first for name in self.files()}
        texts[next(iter(texts))] += kept.text(self.table, self.elements())
        return texts

    def files(self) -> list[str]:
        """The names of the files that reserve the ports."""
        return [file_of(self.protocol, self.host_ip, port) for port in self.ports]

    def probe(self, ctx: Context) -> bool | None:
        for path, text in self._files().items():
            try:
                if ctx.kernel.read(path) != text:
                    return False
            except FileNotFoundError:
                return False
        return rules.in_force(ctx.kernel, self.table, self.elements())

    def explain(self) -> str:
        return f"publish {self.ports}: nft table {self.table}, {_shown(self.elements())}"


def file_of(protocol: str, host_ip: str, port: int) -> str:
    """The name of the file that reserves a port."""
    return f"{protocol}-{host_ip or '*'}-{port}"


def port_of(file: str) -> tuple[str, str, int]:
    """The inverse of :func:`file_of`."""
    protocol, address, port = file.split("-")
    return protocol, "" if address == "*" else address, int(port)


def holder_of(text: str) -> tuple[str, str]:
    """Id and name of the container that such a file tells of."""
    identity, _, name = text.partition("\n")[0].partition(" ")
    return identity, name


def _shown(elements: Sequence[Element]) -> str:
    """The elements in nft's words; of many the first and the last."""
    words = [str(element) for element in elements]
    return ", ".join(words if len(words) <= 8 else (*words[:3], f"{len(words) - 4} more", words[-1]))
