"""The lease of addresses in a network: what every driver of networks does first, and takes back last."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pycore.errors import Conflict
from pycore.ops import Context, Operation
from pycore.steps import Step

RECORD = "network.json"
"""What is kept of a network, in its directory, beside the leases."""
LEASES = "leases"
_LARGE = 1 << 16
"""Bytes: more than is ever in the files that are read here."""


@contextmanager
def concerning(name: str) -> Generator[None]:
    """Netlink and nftables know no file name; an error without one gets the name of what it is about."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or name
        raise


@dataclass(frozen=True)
class Lease(Operation):
    """Take addresses in a network, and make the network, as far as its driver has something to make.

    The lease of an address is a file with a line for who has it: the container's id, its device, its name. There is
    a second line only while a container that is made anew stands beside what it was. It is one operation with
    the network, under one lock, because the network lasts as long as anybody has a lease: whoever leaves last takes
    it down. Each container that joins makes sure of the network anew, which mends what somebody took away.
    """

    step = Step.NETWORK
    network: str
    record: str
    """The network as it is kept, which says all else of it (:meth:`pycore_network.networks.Network.record`)."""
    directory: str
    container: str
    """The id."""
    name: str
    """``APP/NAME``."""
    device: str
    """In the container: ``eth0``."""
    addresses: tuple[str, ...]

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(f"{self.directory}/{LEASES}")
        with ctx.kernel.locked(self._networks), concerning(self.network):
            ctx.kernel.mkdir(f"{self.directory}/{LEASES}")  # again: the last to leave may just have gone
            for address in self.addresses:
                self._lease(ctx, address)
            self.make(ctx)

    def undo(self, ctx: Context) -> None:
        if not ctx.kernel.exists(self.directory):
            return
        with ctx.kernel.locked(self._networks), concerning(self.network):
            for address in self.addresses:
                self._release(ctx, address)
            if not ctx.kernel.listdir(f"{self.directory}/{LEASES}"):
                self.take_down(ctx)
                ctx.kernel.rmtree(self.directory)

    def make(self, ctx: Context) -> None:
        """Make what of the network is not there, its record last."""
        self.keep_record(ctx)

    def take_down(self, ctx: Context) -> None:
        """Take down what was made, but for files: nobody is in it any more."""

    def is_made(self, ctx: Context) -> bool:
        """Whether all of it is there."""
        return self.has_record(ctx)

    @property
    def values(self) -> dict[str, Any]:
        """What the record says."""
        found: dict[str, Any] = json.loads(self.record)
        return found

    def keep_record(self, ctx: Context) -> None:
        """Write down what the network is."""
        if not self.has_record(ctx):
            ctx.kernel.replace(f"{self.directory}/{RECORD}", self.record)

    def has_record(self, ctx: Context) -> bool:
        """Whether what is written down is what this one says."""
        try:
            return ctx.kernel.read(f"{self.directory}/{RECORD}", _LARGE) == self.record
        except FileNotFoundError:
            return False

    @property
    def _networks(self) -> str:
        return self.directory.rpartition("/")[0]

    def _path(self, address: str) -> str:
        return f"{self.directory}/{LEASES}/{address}"

    @property
    def _line(self) -> str:
        return f"{self.container} {self.device} {self.name}\n"

    def _lease(self, ctx: Context, address: str) -> None:
        others = [line for line in self._lines(ctx, address) if not self._is_ours(line)]
        for line in others:
            holder = line.split()[-1]
            if holder.partition("/")[0] != self.name.partition("/")[0]:
                raise Conflict(f"the address {address} is leased to {holder}")
        if others:
            ctx.kernel.replace(self._path(address), "".join((*others, self._line)))
        elif not ctx.kernel.exists(self._path(address)):
            ctx.kernel.create(self._path(address), self._line)

    def _release(self, ctx: Context, address: str) -> None:
        lines = self._lines(ctx, address)
        left = [line for line in lines if not self._is_ours(line)]
        if not left:
            ctx.kernel.unlink(self._path(address))
        elif left != lines:
            ctx.kernel.replace(self._path(address), "".join(left))

    def _is_ours(self, line: str) -> bool:
        return line.split()[:1] == [self.container]

    def _lines(self, ctx: Context, address: str) -> list[str]:
        try:
            return ctx.kernel.read(self._path(address), _LARGE).splitlines(keepends=True)
        except FileNotFoundError:
            return []

    def probe(self, ctx: Context) -> bool | None:
        return all(self._line in self._lines(ctx, address) for address in self.addresses) and self.is_made(ctx)

    def explain(self) -> str:
        addresses, subnets = " and ".join(self.addresses), " and ".join(self.values["subnets"])
        return f"join network {self.network} as {addresses} in {subnets}"
