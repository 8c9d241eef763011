"""What is said of a container to those who share a network with it: its names and addresses there."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.ops import Context, Operation
from pycore.steps import Step

from pycore_network.known import DIRECTORY, Known, path_of


@dataclass(frozen=True)
class Announce(Operation):
    """Write down its names and addresses in one network, where the resolver finds them, while its process is there."""

    step = Step.PUBLISH
    network: str
    directory: str
    """Of the network."""
    container: str
    """The id."""
    app: str
    names: tuple[str, ...]
    aliases: tuple[str, ...]
    addresses: tuple[str, ...]

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(f"{self.directory}/{DIRECTORY}")
        ctx.kernel.replace(self._path, self._text)

    def undo(self, ctx: Context) -> None:
        ctx.kernel.unlink(self._path)

    @property
    def _path(self) -> str:
        return path_of(self.directory, self.container)

    @property
    def _text(self) -> str:
        return Known(self.app, self.names, self.aliases, self.addresses).to_text()

    def probe(self, ctx: Context) -> bool | None:
        try:
            return ctx.kernel.read(self._path) == self._text
        except FileNotFoundError:
            return False

    def explain(self) -> str:
        names = ", ".join((*self.names, *self.aliases))
        return f"announce {names} in network {self.network}: {', '.join(self.addresses)}"
