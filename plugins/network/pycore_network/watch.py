"""Puts the rules back when somebody has thrown them away: ``nft flush ruleset``, the reload of another firewall.

Nobody of ours takes chains, sets or rules away, and tables only with the last network.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.linux.kernel import Kernel

from pycore_network.ops import kept

if TYPE_CHECKING:
    from pycore.linux.nftevents import Deletions

    from pycore_network.loop import Loop


class Watch:
    """Looks after the nftables tables of one run dir, for as long as anything is to be in them."""

    def __init__(self, host: Host, kernel: Kernel) -> None:
        self._run_dir, self._table, self._kernel = str(host.run_dir), host.instance, kernel
        self._lock = threading.Lock()
        self._heard: tuple[Deletions, Loop] | None = None
        self._loopback6: bool | None = None
        self._closed = False

    def changed(self) -> None:
        """Begin with the first network, end with the last. Raises PycoreError where that cannot be."""
        with self._lock:
            if self._closed:
                return
            if not kept.any_rules(self._kernel, self._run_dir):
                self._end()
            elif self._heard is None:
                self._begin()
            self._see_loopback6()

    def close(self) -> None:
        """Nobody looks after the rules from here on, until the next engine begins."""
        with self._lock:
            self._closed = True
            self._end()

    def _begin(self) -> None:
        """From now on, and what has happened while nobody was there."""
        from pycore_network.loop import IN, Loop

        try:
            deletions = self._kernel.hear_deletions(self._table)
            if not all(self._kernel.nft_has(f"{family} {self._table}") for family in ("inet", "bridge")):
                self._put_back()
        except OSError as error:
            raise PycoreError(f"nobody looks after the rules of networks: {error.strerror or error}") from error
        loop = Loop("pycore-rules")
        self._heard = deletions, loop
        loop.post(lambda: loop.watch(deletions.fileno(), IN, lambda _: self._look(deletions)))

    def _end(self) -> None:
        if self._heard:
            deletions, loop = self._heard
            self._heard = None
            loop.end()
            deletions.close()

    def _look(self, deletions: Deletions) -> None:
        if deletions.read():
            try:
                self._put_back()
            except OSError as error:
                sys.stderr.write(f"pycore: the rules of networks are gone: {error.strerror or error}\n")

    def _put_back(self) -> None:
        with self._kernel.locked(f"{self._run_dir}/networks"):
            if kept.any_rules(self._kernel, self._run_dir):
                kept.make_anew(self._kernel, self._run_dir, self._table)

    def _see_loopback6(self) -> None:
        """Another program may have loaded br_netfilter, or set it otherwise, since the tables were made."""
        answers = kept.answers_loopback6(self._kernel)
        if self._heard and answers != self._loopback6:
            self._loopback6 = answers
            try:
                self._kernel.nft(kept.loopback6(self._kernel, self._table))
            except OSError:  # whoever makes the tables sees to it
                return
