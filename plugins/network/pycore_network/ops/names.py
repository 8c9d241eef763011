"""Files that tell a container its names: /etc/hosts, /etc/hostname, /etc/resolv.conf."""

from __future__ import annotations

import errno
import posixpath
from dataclasses import dataclass

from pycore.linux import libc
from pycore.ops import Context, InsideOperation, Operation
from pycore.steps import Step

_ATTRIBUTES = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOEXEC
_MAX_LINKS = 8


@dataclass(frozen=True)
class NameFiles(Operation):
    """Write the files, in a directory of the container's own on the host.

    Where its process lives, they stay what they are and say something else: it has them mounted.
    """

    step = Step.FILES
    directory: str
    hosts: str
    hostname: str
    resolv_conf: str
    servers: str = ""
    """Not for the container: whom the resolver asks for it, a line for each; without any the host's servers."""

    def do(self, ctx: Context) -> None:
        ctx.kernel.mkdir(self.directory)
        for name, text in self._files():
            path = f"{self.directory}/{name}"
            if ctx.pid and ctx.kernel.exists(path):
                ctx.kernel.write(path, text)
            else:
                ctx.kernel.replace(path, text)

    def _files(self) -> tuple[tuple[str, str], ...]:
        return (
            ("hosts", self.hosts), ("hostname", self.hostname), ("resolv.conf", self.resolv_conf),
            ("servers", self.servers),
        )  # fmt: skip

    def undo(self, ctx: Context) -> None:
        if not ctx.pid:
            ctx.kernel.rmtree(self.directory)

    def probe(self, ctx: Context) -> bool | None:
        try:
            return all(ctx.kernel.read(f"{self.directory}/{name}") == text for name, text in self._files())
        except FileNotFoundError:
            return False

    def explain(self) -> str:
        return f"write hosts, hostname, resolv.conf in {self.directory}"


@dataclass(frozen=True)
class NameFile(InsideOperation):
    """Put one of the files over the container's, read-only: it lies in the host's memory, which nobody may fill."""

    step = Step.MOUNT
    source: str
    target: str

    def depth(self) -> int:
        return self.target.count("/")

    def hold(self, ctx: Context) -> None:
        ctx.held[self] = ctx.kernel.mount_clone(self.source, recursive=False)

    def do(self, ctx: Context) -> None:
        tree = ctx.held[self]
        ctx.kernel.mount_attributes(tree, _ATTRIBUTES, recursive=False)
        try:
            ctx.kernel.mount_place(tree, self._place(ctx), directory=False)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise  # a read-only root without such a file goes without

    def _place(self, ctx: Context) -> str:
        """Where the target leads: links are followed by name, as what they lead to may have to be made.

        A resolver's link into /run is the usual case; the container's /run is empty.
        """
        place = self.target
        for _ in range(_MAX_LINKS):
            text = ctx.kernel.link_text(place)
            if not text:
                break
            place = posixpath.normpath(posixpath.join(posixpath.dirname(place), text))
        return place

    def explain(self) -> str:
        return f"mount {self.source} on {self.target}, read-only"
