"""The container's network by pasta(1): a process of the host that does in its own name what the container sends."""

from __future__ import annotations

from dataclasses import dataclass

from pycore.errors import PycoreError
from pycore.ops import Context, Operation
from pycore.steps import Step

DEVICE = "eth0"
RESOLVER = "169.254.1.1"
"""What stands for the host's first name server: link-local, and so nobody's beyond (RFC 3927)."""


@dataclass(frozen=True)
class Pasta(Operation):
    """Start pasta for the container's namespace: ``eth0`` with the host's address, and ports of the host that lead in.

    It cannot reach what listens on the host's loopback, and forwards no port that was not asked for. It lasts as long
    as the container's process, whoever looks after that.
    """

    step = Step.LINK
    program: str
    record: str
    """Where it is written down which process it is."""
    tcp: tuple[str, ...] = ()
    """As pasta writes them: ``127.0.0.1/8080:80``."""
    udp: tuple[str, ...] = ()

    def do(self, ctx: Context) -> None:
        from pycore.linux import helper

        words = [
            self.program, "--foreground", "--quiet", "--runas", "0", "--config-net", "--ns-ifname", DEVICE,
            "--no-map-gw", "--dns-forward", RESOLVER, "--pid", helper.READY, *self._ports(),
            "--netns", "/proc/self/fd/0",
        ]  # fmt: skip
        try:
            ctx.kernel.start_helper(words, self.record, ctx.pid)
        except OSError as error:
            raise PycoreError(f"{ctx.container}: {self.explain()}: {error.strerror}") from error

    def _ports(self) -> list[str]:
        words: list[str] = []
        for option, specs in (("-t", self.tcp), ("-u", self.udp)):
            for spec in specs or ("none",):
                words += [option, spec]
        return [*words, "-T", "none", "-U", "none"]

    def undo(self, ctx: Context) -> None:
        ctx.kernel.end_helper(self.record)

    def probe(self, ctx: Context) -> bool | None:
        return ctx.kernel.has_helper(self.record)

    def explain(self) -> str:
        ports = [*(f"{spec}/tcp" for spec in self.tcp), *(f"{spec}/udp" for spec in self.udp)]
        return f"run {self.program} for its network" + (f", with ports {', '.join(ports)}" if ports else "")
