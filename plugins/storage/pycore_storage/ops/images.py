"""A tar file unpacked once, for all containers that use it."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from pycore.linux.kernel import Kernel
from pycore.ops import Context, Operation
from pycore.steps import Step


@dataclass(frozen=True)
class UnpackedTar(Operation):
    """Unpack ``archive`` below ``image`` unless it is there, and note this container among its users.

    The last user that goes takes all along. The directory above, which is the lock, is closed to other users: what is
    unpacked keeps its setuid bits.
    """

    step = Step.LAYER
    archive: str
    image: str
    user: str

    def do(self, ctx: Context) -> None:
        kernel = ctx.kernel
        images = posixpath.dirname(self.image)
        kernel.mkdir(images, 0o700)
        with kernel.locked(images):
            kernel.mkdir(f"{self.image}/users", 0o700)
            kernel.make_link("../root", f"{self.image}/users/{self.user}")
            if not kernel.is_dir(f"{self.image}/root"):
                self._unpack(kernel)

    def _unpack(self, kernel: Kernel) -> None:
        try:
            kernel.unpack_tar(self.archive, f"{self.image}/root")
        except BaseException:
            self._leave(kernel)
            raise

    def undo(self, ctx: Context) -> None:
        images = posixpath.dirname(self.image)
        if ctx.kernel.is_dir(images):
            with ctx.kernel.locked(images):
                self._leave(ctx.kernel)

    def _leave(self, kernel: Kernel) -> None:
        users = f"{self.image}/users"
        kernel.unlink(f"{users}/{self.user}")
        if not kernel.listdir(users):
            kernel.rmtree(self.image)

    def probe(self, ctx: Context) -> bool | None:
        note = f"{self.image}/users/{self.user}"
        return bool(ctx.kernel.link_text(note)) and ctx.kernel.is_dir(note)

    def explain(self) -> str:
        return f"unpack {self.archive} in {self.image}, unless another container has"
